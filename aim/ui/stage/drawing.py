"""Pictures being drawn for one person: what there is to see of them, and how they are stopped from
anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

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
from aim.images import write
from aim.pipeline import Pipeline

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
    codes: np.ndarray | None = None  # (step,) drawn so far
    images: tuple[Image.Image, ...] = ()  # of several pictures that are done, each by itself
    # (step, 13) on them, as of ``aim.sampling.explain``, where they were asked for
    notes: np.ndarray | None = None

    @property
    def rate(self) -> float:
        """Codes a second."""
        return self.step / self.seconds if self.seconds > 0 else 0.0


class Drawing:
    """One picture, or several at once. ``views`` and ``many`` are for one thread; ``stop`` may be
    called from any, at any time.
    """

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped

    def stop(self) -> None:
        """Leave the engine within a step; if it was not entered yet, never enter it."""
        with self._lock:
            self._stopped = True
            for subscription in self._subscriptions:
                subscription.close()

    def views(self, pipe: Pipeline, request: Request, preview_every: int) -> Iterator[View]:
        """What there is to see of ``request``, at most ``MAX_FPS`` times a second; the last view is
        done or stopped.

        ``preview_every`` is the number of codes between two pictures, 0 for none before the last.
        Raises QueueFull where the line is full, and the error of a request that failed. Closing the
        generator stops the drawing.
        """
        total = pipe.model.config.num_tokens
        pace = _Pace(preview_every)
        try:
            subscription = self._enter(pipe, request)
            for event in subscription or ():
                if isinstance(event, Queued):
                    yield View("waiting", 0, total, place=event.place)
                elif isinstance(event, Started):
                    yield View("drawing", 0, total)
                elif isinstance(event, Preparing):
                    yield View(
                        "preparing",
                        subscription.step if subscription else 0,
                        total,
                        note=event.message,
                    )
                elif isinstance(event, Progress) and event.step < total and pace.due():
                    image = pace.preview(pipe, event)
                    yield View(
                        "drawing",
                        event.step,
                        total,
                        event.seconds,
                        image=image,
                        codes=event.codes,
                        notes=event.notes,
                    )
                elif isinstance(event, Finished):
                    image = pipe.picture(event.codes)
                    yield View(
                        "done",
                        total,
                        total,
                        event.seconds,
                        image=image,
                        codes=event.codes,
                        notes=event.notes,
                    )
                    return
                elif isinstance(event, Failed):
                    raise event.error
            yield View("stopped", subscription.step if subscription else 0, total)
        finally:
            self.stop()

    def _enter(self, pipe: Pipeline, request: Request) -> Subscription | None:
        with self._lock:
            if self._stopped:
                return None
            self._subscriptions.append(pipe.server.stream(request))
            return self._subscriptions[-1]

    def many(
        self, pipe: Pipeline, requests: Sequence[Request], preview_every: int
    ) -> Iterator[View]:
        """As ``views``, of several requests at once: ``image`` shows them side by side, steps and
        codes are of all together.
        """
        total = pipe.model.config.num_tokens
        pace = _Pace(preview_every * len(requests))
        latest: list[Progress | Finished | None] = [None] * len(requests)
        place, note = 0, ""
        try:
            subscriptions = [
                one
                for one in (self._enter(pipe, request) for request in requests)
                if one is not None
            ]
            for i, event in _together(subscriptions):
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, (Progress, Finished)):
                    latest[i] = event
                    place, note = 0, ""
                place = event.place if isinstance(event, Queued) else place
                note = event.message if isinstance(event, Preparing) else note
                step = sum(len(one.codes) for one in latest if one is not None)
                state = "preparing" if note else "drawing" if step or not place else "waiting"
                if step < total * len(requests) and not self._stopped and pace.due():
                    seconds = max((one.seconds for one in latest if one is not None), default=0.0)
                    image = pace.shown(
                        step,
                        lambda: write.mosaic(
                            [pipe.preview(one.codes) if one else None for one in latest]
                        ),
                    )
                    yield View(state, step, total * len(requests), seconds, place, image, note)
            done = [one for one in latest if isinstance(one, Finished)]
            if len(done) == len(requests):
                images = tuple(pipe.pictures(one.codes for one in done))
                seconds = max(one.seconds for one in done)
                yield View(
                    "done",
                    total * len(done),
                    total * len(done),
                    seconds,
                    image=write.mosaic(images),
                    images=images,
                )
            else:
                yield View(
                    "stopped",
                    sum(len(one.codes) for one in latest if one is not None),
                    total * len(requests),
                )
        finally:
            self.stop()


def _together(subscriptions: Sequence[Subscription]) -> Iterator[tuple[int, Event]]:
    """The events of all, each with the number of its subscription, as they come; raises what one of
    them raises.
    """
    events: SimpleQueue[tuple[int, Event | Exception | None]] = SimpleQueue()

    def listen(i: int, subscription: Subscription) -> None:
        try:
            for event in subscription:
                events.put((i, event))
            events.put((i, None))
        except Exception as error:  # whoever asks for the next event gets it
            events.put((i, error))

    for i, subscription in enumerate(subscriptions):
        threading.Thread(
            target=listen, args=(i, subscription), name=f"listen-{i}", daemon=True
        ).start()
    left = len(subscriptions)
    while left:
        i, event = events.get()
        if isinstance(event, Exception):
            raise event
        if event is None:
            left -= 1
        else:
            yield i, event


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

    def preview(self, pipe: Pipeline, event: Progress) -> Image.Image | None:
        """The picture so far, if one is due."""
        return self.shown(event.step, lambda: pipe.preview(event.codes))

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
