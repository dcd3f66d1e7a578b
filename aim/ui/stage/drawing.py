"""Pictures being drawn for one person: what there is to see of them, and how they are stopped from
anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from aim.engine import Request
from aim.errors import GenerationError
from aim.images import write
from aim.pipeline import Frame, Pipeline, Stream

# codes between two counts; a count costs nothing, so it does not follow the preview rate
COUNT_EVERY = 4
MAX_FPS = 12  # what a page takes in well: it gets the newest state, not every state
PREVIEW_SHARE = 0.3  # of the time at most: on a CPU the image decoder takes it from the model


@dataclass(frozen=True)
class View:
    """What there is to see at one moment. ``image`` is None where the picture has not changed."""

    state: str  # waiting, preparing, drawing, done or stopped
    step: int
    total: int
    seconds: float = 0.0  # of model time
    place: int = 0  # in line; 0 once it is drawn
    image: Image.Image | None = None
    note: str = ""  # what is prepared
    codes: np.ndarray | None = None  # (step,) drawn so far, of the first
    images: tuple[Image.Image, ...] = ()  # that are done, each by itself
    # (step, 13) on them, as of ``aim.sampling.explain``, where they were asked for
    notes: np.ndarray | None = None

    @property
    def rate(self) -> float:
        """Codes a second."""
        return self.step / self.seconds if self.seconds > 0 else 0.0


class Drawing:
    """One picture, or several at once. ``views`` is for one thread; ``stop`` may be called from
    any, at any time.
    """

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped

    def stop(self) -> None:
        """Leave the engine within a step; if it was not entered yet, never enter it."""
        self._stopped = True
        if self._stream is not None:
            self._stream.close()

    def views(
        self,
        pipe: Pipeline,
        requests: Sequence[Request],
        preview_every: int,
        arrange: Callable[[Sequence[Any]], Image.Image] = write.mosaic,
    ) -> Iterator[View]:
        """What there is to see of ``requests``, at most ``MAX_FPS`` times a second; the last view is
        done or stopped.

        ``preview_every`` is the number of codes between two pictures, 0 for none before the last;
        ``arrange`` puts several into one. Raises QueueFull where the line is full, and the error of
        a request that failed. Closing the generator stops the drawing.
        """
        total = len(requests) * pipe.model.config.num_tokens
        pace, told = _Pace(preview_every * len(requests)), ("", 0, "")
        latest: list[Frame | None] = [None] * len(requests)  # None until it is heard of
        begun, step, seconds = list[Frame](), 0, 0.0
        stream = self._stream = pipe.open(requests)
        try:
            next(stream)  # the empty one
            for frame in () if self._stopped else stream:
                latest[frame.number] = frame
                begun = [one for one in latest if one is not None]
                step, seconds = sum(f.step for f in begun), max(f.seconds for f in begun)
                place, note = min(f.place for f in begun), frame.note
                state = "preparing" if note else "waiting" if place else "drawing"
                if step < total and (told != (state, place, note) or pace.due()):
                    told = state, place, note
                    image = pace.shown(
                        step,
                        lambda: arrange([pipe.preview(f.codes) if f else None for f in latest]),
                    )
                    codes, notes = begun[0].codes, begun[0].notes
                    yield View(state, step, total, seconds, place, image, note, codes, notes=notes)
            if step < total:
                yield View("stopped", step, total)
                return
            images = tuple(pipe.pictures(f.codes for f in begun))
            image, codes, notes = arrange(images), begun[0].codes, begun[0].notes
            yield View("done", total, total, seconds, 0, image, "", codes, images, notes)
        except GenerationError as error:
            raise error.__cause__ or error from None
        finally:
            self.stop()


class _Pace:
    """Which events are shown, and which of those with a picture."""

    def __init__(self, preview_every: int) -> None:
        self._every = preview_every
        self._next_view = self._next_image = 0.0
        self._step = 0  # of the last picture

    def due(self) -> bool:
        """Whether it is time for another view."""
        now = time.monotonic()
        if now < self._next_view:
            return False
        self._next_view = now + 1 / MAX_FPS
        return True

    def shown(self, step: int, draw: Callable[[], Image.Image | None]) -> Image.Image | None:
        """The picture that ``draw`` makes of ``step`` codes, if one is due."""
        started = time.monotonic()
        if not self._every or step < self._step + self._every or started < self._next_image:
            return None
        self._step = step
        image = draw()
        taken = time.monotonic() - started
        self._next_image = started + taken / PREVIEW_SHARE
        return image
