"""Pictures being drawn for one person: what there is to see of them, and how they are stopped from
anywhere.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from aim.engine import Request
from aim.errors import GenerationError
from aim.images import write
from aim.pipeline import Frame, Pipeline, Stream
from aim.ui.line import ENDING, Line

# codes between two counts; a count costs nothing, so it does not follow the preview rate
COUNT_EVERY = 8
MAX_FPS = 12  # what a page takes in well: it gets the newest state, not every state
MIN_FPS = 2  # later in a long drawing: the browser keeps the pace in between
# views a second of everybody together: each costs some 2 ms of the process that also draws
VIEWS_A_SECOND = 60
# of the time, for everybody together: on a CPU the image decoder takes it from the model
PREVIEW_SHARE = 0.08
MAX_WAIT = 3.0  # seconds for the next picture, after one that was slow for once


@dataclass(frozen=True)
class View:
    """What there is to see at one moment. ``image`` is None where the picture has not changed."""

    state: str  # waiting, preparing, drawing, done or stopped
    step: int
    total: int
    seconds: float = 0.0  # of model time
    place: int = 0  # in line; 0 once it is drawn
    image: Image.Image | None = None
    note: str = ""  # what is prepared, or why the server stopped it
    codes: tuple[np.ndarray, ...] = ()  # (n,) drawn so far, of each
    images: tuple[Image.Image, ...] = ()  # that are done, each by itself
    # (n, 13) on those of the first, as of ``aim.sampling.explain``, where they were asked for
    notes: np.ndarray | None = None
    kept: int = 0  # of ``step``, codes that were given and not drawn
    passes: int = 0  # of the model, of all pictures
    # (n,) that follow those of the first, and may still change, where notes were asked for
    guesses: np.ndarray | None = None

    @property
    def rate(self) -> float:
        """Codes a second that were drawn."""
        return max(0, self.step - self.kept) / self.seconds if self.seconds > 0 else 0.0


class Drawing:
    """One picture, or several at once. ``views`` is for one thread; ``stop`` may be called from
    any, at any time.
    """

    def __init__(self, owner: Sequence[str] = (), line: Line | None = None) -> None:
        """``owner`` as of a ``Request``; ``line`` has admitted it."""
        self._owner, self._line = tuple(owner), line
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
        """What there is to see of ``requests``, at most ``MAX_FPS`` times a second; the last view
        is done or stopped, and has the codes.

        ``preview_every`` is the number of codes between two pictures, 0 for none before the last:
        they come less often where the image decoder is slow or many draw. ``arrange`` puts several
        into one. Raises QueueFull where the line is full, and the error of a request that failed.
        Closing the generator stops the drawing.
        """
        total = len(requests) * pipe.model.config.num_tokens
        told, kept = ("", 0, ""), sum(len(request.prefix) for request in requests)
        latest: list[Frame | None] = [None] * len(requests)  # None until it is heard of
        stream = self._stream = pipe.open([replace(one, owner=self._owner) for one in requests])

        def view(state: str, **more: Any) -> View:
            begun = [frame for frame in latest if frame is not None]
            codes = tuple(frame.codes if frame else np.zeros(0, np.int64) for frame in latest)
            seconds = max((frame.seconds for frame in begun), default=0.0)
            first = {"notes": latest[0].notes, "guesses": latest[0].guesses} if latest[0] else {}
            step = sum(map(len, codes))
            passes = sum(frame.passes for frame in begun)
            told = {"codes": codes, "kept": kept, "passes": passes, **first, **more}
            return View(state, step, total, seconds, **told)

        def preview() -> Image.Image:
            return arrange([pipe.preview(frame.codes) if frame else None for frame in latest])

        def claim() -> None:
            """Have as many under way at once as there is room for."""
            if self._line is not None and len(requests) > 1:
                left = sum(frame is None or not frame.done for frame in latest)
                stream.most = self._line.claim(self, left)

        try:
            claim()
            next(stream)  # the empty one
            with _Pace(preview_every * len(requests)) as pace:
                for frame in () if self._stopped else stream:
                    latest[frame.number] = frame
                    if frame.done:
                        claim()
                    begun = [one for one in latest if one is not None]
                    step = sum(one.step for one in begun)
                    place, note = min(one.place for one in begun), frame.note
                    state = "preparing" if note else "waiting" if place else "drawing"
                    # at once where the state is another, but not to say that nothing is drawn yet;
                    # several pictures move together
                    now = state, place, note
                    news = told != now and (told[0] or state != "drawing" or step > kept)
                    if step < total and (news or (not stream.more and pace.due())):
                        told = now
                        image = pace.shown(step, preview)
                        yield view(state, place=place, note=note, image=image)
                        stream.rest(pace.left)
            codes = [frame.codes for frame in latest if frame is not None]
            if sum(map(len, codes)) < total:
                ends = self._line is not None and self._line.ending
                yield view("stopped", note=ENDING if ends else "")
                return
            images = tuple(pipe.pictures(codes))
            yield view("done", image=arrange(images), images=images)
        except GenerationError as error:
            raise error.__cause__ or error from None
        finally:
            self.stop()


class _Pace:
    """Which moments of a drawing are shown, and which of those with a picture. What views and
    pictures may cost is shared by all who draw.
    """

    _lock = threading.Lock()
    _drawing = 0  # how many draw now
    _next_image = 0.0  # when anybody may make one

    def __init__(self, preview_every: int) -> None:
        self._every = preview_every
        self._began = time.monotonic()
        self._next_view = 0.0
        self._step = 0  # of the last picture

    def __enter__(self) -> _Pace:
        with _Pace._lock:
            _Pace._drawing += 1
        return self

    def __exit__(self, *_: object) -> None:
        with _Pace._lock:
            _Pace._drawing -= 1

    def due(self) -> bool:
        """Whether it is time for another view: often at first, less in a long drawing."""
        now = time.monotonic()
        if now < self._next_view:
            return False
        rare = min(1 / MIN_FPS, (now - self._began) / 8)
        self._next_view = now + max(1 / MAX_FPS, rare, _Pace._drawing / VIEWS_A_SECOND)
        return True

    @property
    def left(self) -> float:
        """Seconds to the next view."""
        return self._next_view - time.monotonic()

    def shown(self, step: int, draw: Callable[[], Image.Image]) -> Image.Image | None:
        """The picture that ``draw`` makes of ``step`` codes, if one is due."""
        started = time.monotonic()
        if not self._every or step < self._step + self._every:
            return None
        with _Pace._lock:
            if started < _Pace._next_image:
                return None
            _Pace._next_image = math.inf  # nobody else's before this one is made
        try:
            image = draw()
        finally:
            now = time.monotonic()
            _Pace._next_image = now + min(MAX_WAIT, (now - started) * (1 / PREVIEW_SHARE - 1))
        self._step = step
        return image
