"""What clients see of drawings: the events of an engine as frames, of one request or of many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from PIL import Image

from aim.engine import (
    Event,
    Failed,
    Feed,
    Finished,
    Preparing,
    Progress,
    Queued,
    Request,
    Service,
    Started,
)
from aim.errors import AimError, GenerationError, QueueFull


@dataclass(frozen=True, eq=False)
class Frame:
    """A moment of a drawing: ``codes`` (step,) of ``total`` are drawn, after ``seconds`` of model
    time.

    ``image`` is None where there is nothing new to see, RGBA and transparent where nothing is drawn
    yet, RGB at the end; a notebook shows it. ``place`` is the place in line, 0 for a request that
    runs. ``note`` says what is waited for otherwise, empty for nothing. ``notes`` (step, 13)
    float32 are those of ``aim.sampling.explain``, if they were asked for and there are codes.
    ``number`` says which request of the stream it is of, from 0; ``passes`` how often the model has
    run for it, fewer times than there are codes where it looks ahead. ``guesses`` (n,) are then,
    beside ``notes``, what it holds for the codes that follow and may still change.
    """

    step: int
    total: int
    codes: np.ndarray
    image: Image.Image | None
    seconds: float
    place: int = 0
    note: str = ""
    notes: np.ndarray | None = None
    number: int = 0
    passes: int = 0
    guesses: np.ndarray | None = None

    @property
    def done(self) -> bool:
        """Whether all codes are drawn."""
        return self.step == self.total

    def _repr_png_(self) -> bytes | None:
        return None if self.image is None else self.image._repr_png_()


class Stream(Iterator[Frame]):
    """The frames of one drawing or of many, as they come.

    The first frame is empty and costs nothing; requests are submitted after it, each as soon as
    the engine has room, so QueueFull and GenerationError may come from any later one. A client that
    is slow gets the newest frame of each drawing. ``close`` may be called from any thread, ends the
    drawings within one step, and with them the stream; letting go of the stream does the same.
    """

    def __init__(
        self,
        serve: Callable[[], Service],
        requests: Sequence[Request],
        total: int,
        image: Callable[[np.ndarray], Image.Image | None] = lambda codes: None,
    ) -> None:
        """``requests`` of ``total`` codes each to the server of ``serve``, which is asked once the
        first frame was taken; ``image`` makes what codes look like.
        """
        self.requests = tuple(requests)
        self.most = len(self.requests)  # that are under way at once; may change at any time
        self._serve, self._image = serve, image
        self._subscription: Feed | None = None
        self._todo = deque(self.requests)
        self._waiting: set[int] = set()  # ids of those in line
        self._begun = self._closed = False
        empty = Frame(0, total, np.zeros(0, np.int64), None, 0.0)
        self._latest = {r.id: replace(empty, number=i) for i, r in enumerate(self.requests)}

    def __next__(self) -> Frame:
        # no generator: it would be in a cycle with this object, and letting go would cancel only
        # when that is collected
        if not self._begun and self.requests:
            self._begun = True
            return self._latest[self.requests[0].id]
        if self._todo and not self._closed:
            self._submit()
        if self._closed:
            self.close()  # again: another thread may have, while there was nothing to close
        for event in self._subscription or ():
            if not self._closed:
                return self._frame(event)
        raise StopIteration

    def close(self) -> None:
        """Stop drawing."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()

    @property
    def more(self) -> bool:
        """Whether the next frame is here."""
        return self._subscription is not None and self._subscription.more

    def rest(self, seconds: float) -> None:
        """Let frames of drawings that go on be for so long; the newest are had after it. With a
        crowd, whom each frame wakes, the engine would wait for all of them.
        """
        if self._subscription is not None:
            self._subscription.rest(seconds)

    def _submit(self) -> None:
        server = self._serve()
        if self._subscription is None:
            self._subscription = server.stream()
        engine = server.engine
        # one in line for all of them, so that a sweep of many takes nobody's place
        while (
            self._todo
            and self._subscription.pending < min(self.most, engine.max_requests)
            and (engine.room > 0 or not self._waiting)
        ):
            try:
                self._subscription.submit(self._todo[0])
            except QueueFull:  # others wait, too: go on with what we have
                if not self._subscription.pending:
                    raise
                return
            self._waiting.add(self._todo.popleft().id)

    def _frame(self, event: Event) -> Frame:
        frame = self._latest[event.request_id]
        if isinstance(event, Queued):
            return replace(frame, place=event.place)
        self._waiting.discard(event.request_id)
        if isinstance(event, Preparing):
            return replace(frame, note=event.message)
        if isinstance(event, (Progress, Finished)):
            frame = replace(
                frame,
                step=len(event.codes),
                codes=event.codes,
                seconds=event.seconds,
                notes=event.notes,
                passes=event.passes,
                guesses=event.guesses if isinstance(event, Progress) else None,
            )
            self._latest[event.request_id] = frame
            return replace(frame, image=self._image(event.codes))
        if isinstance(event, Failed):
            if isinstance(event.error, AimError):
                raise event.error
            raise GenerationError(f"the model failed: {event.error}") from event.error
        if isinstance(event, Started):
            return frame
        raise GenerationError("the drawing was cancelled: the engine was closed")


def in_order(
    stream: Stream, progress: Callable[[int, int], None] | None = None
) -> Iterator[np.ndarray]:
    """All codes (total,) of one request after another; ``progress`` is told the codes drawn of all
    and their total. Closing the iterator closes the stream.
    """
    count = len(stream.requests)
    steps, drawn = [0] * count, dict[int, np.ndarray]()
    step = turn = 0
    with closing(stream):
        for frame in stream:
            step += frame.step - steps[frame.number]
            steps[frame.number] = frame.step
            if progress:
                progress(step, count * frame.total)
            if frame.done:
                drawn[frame.number] = frame.codes
            while turn in drawn:
                yield drawn.pop(turn)
                turn += 1


def run(service: Service, requests: Iterable[Request]) -> Iterator[Event]:
    """The events of many requests, of which twice as many are submitted as can run at once, as far
    as the line takes them, so that who is slow to take the events keeps nothing idle. Closing the
    iterator cancels the rest.
    """
    todo, near = iter(requests), deque[Request]()
    with closing(service.stream()) as feed:
        while True:
            more = max(0, 2 * service.engine.max_requests - feed.pending - len(near))
            near.extend(islice(todo, more))
            try:
                while near:
                    feed.submit(near[0])
                    near.popleft()
            except QueueFull:  # the line is shorter, or others wait, too: go on with what we have
                if not feed.pending:
                    raise
            if not feed.pending:
                return
            yield next(feed)
