"""What the page does when somebody asks: every handler, apart from how the page is laid out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from aim.checks import quoted
from aim.config import SAMPLING, SamplingParams
from aim.engine import Request
from aim.errors import InvalidInput
from aim.pipeline import Pipeline
from aim.ui.drawings import Drawings, Drawn, stopped
from aim.ui.models import Models
from aim.ui.settings.recall import check_count, check_typed, seed_to_draw
from aim.ui.stage.drawing import COUNT_EVERY, Drawing, View
from aim.ui.stage.reel import Reel
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import (
    Update,
    awaited,
    describe_view,
    explain,
    keep,
    preview_png,
    status,
    verdict,
)

NO_MOVIE = "none"
MOVIES = (NO_MOVIE, "gif", "mp4")
_log = logging.getLogger(__name__)


class Screen(NamedTuple):
    """The components that a drawing writes to; the API returns the first five, in this order."""

    picture: Component
    progress: Component
    png: Component
    gif: Component
    parameters: Component
    start: Component
    stop: Component
    stage: Component


class Actions:
    """The handlers of one page."""

    def __init__(self, models: Models, screen: Screen, drawings: Drawings) -> None:
        self.models, self.screen, self.drawings = models, screen, drawings
        self.sessions = Sessions(Drawing, models.line)

    def classes(self, model: str = "") -> list[dict[str, Any]]:
        """The classes that a model knows: ImageNet index and name of each. Without a name, the
        page's own model.
        """
        pipe = self._model(model)
        return [{"index": index, "title": pipe.title(index)} for index in pipe.classes]

    def stop(self, request: gr.Request) -> None:
        """Stop what this session draws, within one step of the model."""
        self.sessions.stop(request.session_hash or "")

    def check(self, **values: Any) -> list[dict[str, Any]]:
        """A verdict on each input of ``generate``, before it takes a place in line."""
        model = values["model"] or self.models.default
        pipe = self.models.peek(model) if isinstance(model, str) else None
        tests: dict[str, Callable[[Any], object]] = {
            "label": lambda label: pipe.resolve(label) if pipe else label,
            "model": lambda _: self.models.check(model),
            "random_seed": check_switch,
            "seed": lambda seed: values["random_seed"] or check_typed(seed),
            "preview_every": lambda every: Request(0, preview_every=every),
            "count": check_count,
            "movie": check_movie,
            **{p.name: lambda v, p=p: v is None or p.check(v) for p in SAMPLING},  # type: ignore[misc]
        }
        return [verdict(partial(tests.get(name, bool), value)) for name, value in values.items()]

    def generate(
        self,
        label: Any,
        model: str,
        seed: int,
        random_seed: bool,
        preview_every: int,
        count: int,
        movie: str,
        request: gr.Request,
        **sampling: Any,
    ) -> Iterator[Update]:
        """Draw 1, 4 or 9 pictures at once, streamed.

        ``label`` is a class by index, name or title; without a model it is the page's own, and a
        parameter left None is the model's.

        Returns the picture, the progress, the PNG with its parameters inside, the film that
        ``movie`` asks for (none, gif or mp4), and the parameters. Several pictures are shown side
        by side; picture i is drawn with ``seed + i``.
        """
        with self.sessions.one(request) as drawing:
            # the first update comes at once: a run that is cancelled before it would never be
            # closed
            yield {**self._buttons(busy=True), **self._update("starting", "Starting …")}
            try:
                pipe = yield from awaited(
                    self.models,
                    model,
                    lambda state, text: {
                        **self._buttons(busy=state == "loading"),
                        **self._update(state, text),
                    },
                    lambda: drawing.stopped,
                )
                if pipe is None:
                    return
                index = pipe.resolve(label)
                params = pipe.params(**sampling)
                pictures = check_count(count)
                drawn_with = seed_to_draw(seed, random_seed, pictures)
                yield from self._draw(
                    drawing,
                    pipe,
                    index,
                    params,
                    range(drawn_with, drawn_with + pictures),
                    preview_every,
                    check_movie(movie),
                )
            except Exception as error:
                yield {**self._buttons(busy=False), **self._update("failed", explain(error))}
                raise

    def _draw(
        self,
        drawing: Drawing,
        pipe: Pipeline,
        index: int,
        params: SamplingParams,
        seeds: range,
        preview_every: int,
        movie: str,
    ) -> Iterator[Update]:
        screen = self.screen
        picture: str | None = None
        reel = Reel(pipe, pipe.title(index), len(seeds))
        requests = [Request(pipe.row(index), params, seed, COUNT_EVERY) for seed in seeds]
        for view in drawing.views(pipe, requests, preview_every):
            if view.state == "done":
                each = tuple(pipe.parameters(index, seed, params) for seed in seeds)
                drawn = Drawn(pipe, view.codes, each)
                self.drawings.remember(drawn, view.images)
                png = keep(drawn.png(view.images), f"{drawn.stem}.png", screen.png)
                update = {
                    **self._update(view.state, describe_view(view), view, png),
                    **self._buttons(busy=False),
                    screen.png: png,
                    screen.parameters: drawn.together,
                    screen.stage: reel.show(view, png, made=drawn.told(), opens=True),
                }
                yield update
                if movie != NO_MOVIE:
                    yield from self._filmed(update, drawn, movie)
                return
            if view.image is not None:
                picture = keep(preview_png(view.image), "preview.png", screen.picture)
            update = self._update(view.state, describe_view(view), view, picture)
            more: dict[str, Any] = {}
            if view.state == "stopped":
                update.update(self._buttons(busy=False))
                each = tuple(pipe.parameters(index, seed, params) for seed in seeds)
                more = {"made": stopped(pipe, view.codes, each), "opens": True}
            update[screen.stage] = reel.show(view, picture if view.image else None, **more)
            yield update

    def _filmed(self, update: Update, drawn: Drawn, movie: str) -> Iterator[Update]:
        """``update`` with the film of a drawing, which is there already: it stays, whatever becomes
        of the film.
        """
        shown = update[self.screen.progress]
        yield {**update, self.screen.progress: {**shown, "text": f"Making the {movie.upper()} …"}}
        try:
            film: bytes | None = self.drawings.file(drawn, movie)
        except Exception:
            _log.exception("the %s of a drawing could not be made", movie)
            film = None
        if film is None:
            text = f"{shown['text']}; the {movie.upper()} could not be made"
            yield {**update, self.screen.progress: {**shown, "text": text}}
        else:
            path = keep(film, f"{drawn.stem}.{movie}", self.screen.gif)
            yield {**update, self.screen.gif: path}

    def _update(
        self, state: str, text: str, view: View | None = None, picture: str | None = None
    ) -> Update:
        """What there is to see, and nothing to take home yet. Whole: a program that reads the
        stream sees no gaps.
        """
        screen = self.screen
        nothing = dict.fromkeys((screen.png, screen.gif, screen.parameters))
        return {screen.picture: picture, screen.progress: status(state, text, view), **nothing}

    def _buttons(self, *, busy: bool) -> Update:
        return {
            self.screen.start: gr.update(interactive=not busy),
            self.screen.stop: gr.update(interactive=busy),
        }

    def _model(self, name: str) -> Pipeline:
        return self.models.get(name or self.models.default)


def check_switch(random_seed: Any) -> bool:
    """``random_seed`` if it is true or false, else InvalidInput."""
    if not isinstance(random_seed, bool):
        raise InvalidInput(f"random_seed is {quoted(random_seed)}; it must be true or false")
    return random_seed


def check_movie(movie: Any) -> str:
    """``movie`` if there is such a film, else InvalidInput."""
    if movie not in MOVIES:
        raise InvalidInput(f"movie is {quoted(movie)}; it must be one of {', '.join(MOVIES)}")
    return str(movie)
