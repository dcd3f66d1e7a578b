"""One drawing as its client sees it: frames, as ``Pipeline.stream`` hands them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from PIL import Image

from aim.engine import (
    Event,
    Failed,
    Finished,
    Preparing,
    Progress,
    Queued,
    Request,
    Started,
    Subscription,
)
from aim.errors import AimError, GenerationError

if TYPE_CHECKING:
    from aim.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class Frame:
    """A moment of a drawing: ``codes`` (step,) of ``total`` are drawn, after ``seconds`` of model
    time.

    ``image`` is None where there is nothing new to see, RGBA and transparent where nothing is drawn
    yet, RGB at the end. ``place`` is the place in line, 0 for a request that runs. ``note`` says
    what is waited for otherwise, empty for nothing. ``notes`` (step, 13) float32 are those of
    ``aim.sampling.explain``, if they were asked for and there are codes.
    """

    step: int
    total: int
    codes: np.ndarray
    image: Image.Image | None
    seconds: float
    place: int = 0
    note: str = ""
    notes: np.ndarray | None = None


class Stream(Iterator[Frame]):
    """The frames of one drawing, as ``Pipeline.stream`` returns it.

    The first frame is empty and costs nothing; the request is submitted after it, so QueueFull and
    GenerationError may come from any later one. A client that is slow gets the newest frame.
    ``close`` may be called from any thread, ends the drawing within one step, and with it the
    stream; letting go of the stream does the same.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self.request = request
        self._pipeline = pipeline
        self._subscription: Subscription | None = None
        self._begun = self._closed = False
        # the last one
        self._frame = Frame(0, pipeline.model.config.num_tokens, np.zeros(0, np.int64), None, 0.0)

    def __next__(self) -> Frame:
        # no generator: it would be in a cycle with this object, and letting go would cancel only
        # when that is collected
        pipeline = self._pipeline
        if not self._begun:
            self._begun = True
            return self._frame
        if self._subscription is None and not self._closed:
            self._subscription = pipeline.server.stream(self.request)
        if self._subscription is None or self._closed:
            self.close()  # again: another thread may have, while there was no subscription to close
            raise StopIteration
        event = next(self._subscription)
        if self._closed:
            raise StopIteration
        if isinstance(event, Queued):
            return replace(self._frame, place=event.place)
        if isinstance(event, Preparing):
            return replace(self._frame, image=None, note=event.message)
        if isinstance(event, Started):
            return self._frame
        if not isinstance(event, (Progress, Finished)):
            fail(event)
        image = (pipeline.preview if isinstance(event, Progress) else pipeline.picture)(event.codes)
        self._frame = Frame(
            len(event.codes),
            self._frame.total,
            event.codes,
            image,
            event.seconds,
            notes=event.notes,
        )
        return self._frame

    def close(self) -> None:
        """Stop drawing."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()


def fail(event: Event) -> NoReturn:
    """Raise what went wrong with a request that ended without its codes, as an AimError."""
    if not isinstance(event, Failed):
        raise GenerationError("the drawing was cancelled: the engine was closed")
    if isinstance(event.error, AimError):
        raise event.error
    raise GenerationError(f"the model failed: {event.error}") from event.error
