"""What the page does when somebody asks: every handler, apart from how the page is laid out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component
from PIL import Image

from aim.config import MAX_SEED, SamplingParams, check_seed
from aim.engine import Request
from aim.errors import AimError
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.generate.recall import check_count
from aim.ui.models import Models
from aim.ui.stage.drawing import COUNT_EVERY, Drawing, View
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import Update, describe_view, explain, keep, preview_png, status, verdict

GIF_SECONDS = 3.0  # a drawing plays in about this time


class Screen(NamedTuple):
    """The components that a drawing writes to; the API returns the first five, in this order."""

    picture: Component
    progress: Component
    png: Component
    gif: Component
    parameters: Component
    start: Component
    stop: Component
    made: Component


class Made(NamedTuple):
    """What was drawn: each picture's PNG with its parameters, and a film of the drawing."""

    pictures: tuple[tuple[str, dict[str, Any]], ...]
    film: str


class Actions:
    """The handlers of one page."""

    def __init__(self, models: Models, screen: Screen) -> None:
        self.models, self.screen = models, screen
        self.sessions = Sessions(Drawing)

    def classes(self, model: str = "") -> list[dict[str, Any]]:
        """The classes that a model knows: ImageNet index and name of each. Without a name, the
        page's own model.
        """
        pipe = self._model(model)
        return [{"index": index, "title": pipe.title(index)} for index in pipe.classes]

    def random_class(self, model: str = "") -> int:
        """The ImageNet index of one of the classes that a model knows."""
        return random.choice(self._model(model).classes)

    def stop(self, request: gr.Request) -> None:
        """Stop what this session draws, within one step of the model."""
        self.sessions.stop(request.session_hash or "")

    def check(
        self,
        label: Any,
        model: Any,
        cfg_scale: Any,
        temperature: Any,
        top_k: Any,
        top_p: Any,
        seed: Any,
        random_seed: Any,
        preview_every: Any,
        count: Any,
    ) -> list[dict[str, Any]]:
        """A verdict on each input of ``generate``, before it takes a place in line."""
        model = model or self.models.default
        pipe = self.models.peek(model) if isinstance(model, str) else None
        return [
            verdict(lambda: pipe.resolve(label) if pipe else label),
            verdict(lambda: self.models.check(model)),
            verdict(lambda: SamplingParams().replace(cfg_scale=cfg_scale)),
            verdict(lambda: SamplingParams().replace(temperature=temperature)),
            verdict(lambda: SamplingParams().replace(top_k=top_k)),
            verdict(lambda: SamplingParams().replace(top_p=top_p)),
            verdict(lambda: random_seed or check_seed(seed)),
            verdict(lambda: None),
            verdict(lambda: Request(0, preview_every=preview_every)),
            verdict(lambda: check_count(count)),
        ]

    def generate(
        self,
        label: Any,
        model: str,
        cfg_scale: float | None,
        temperature: float | None,
        top_k: int | None,
        top_p: float | None,
        seed: int,
        random_seed: bool,
        preview_every: int,
        count: int,
        request: gr.Request,
    ) -> Iterator[Update]:
        """Draw 1, 4 or 9 pictures at once, streamed.

        ``label`` is a class by index, name or title; without a model it is the page's own, and a
        parameter left None is the model's.

        Returns the picture, the progress, the PNG with its parameters inside, a GIF of the drawing,
        and the parameters. Several pictures are shown side by side; picture i is drawn with ``seed
        + i``.
        """
        with self.sessions.one(request.session_hash or "") as drawing:
            # the first update comes at once: a run that is cancelled before it would never be
            # closed
            yield {**self._buttons(busy=True), **self._update("starting", "Starting …")}
            model = model or self.models.default
            try:
                future = self.models.fetch(model)
                while not future.done():
                    if drawing.stopped:
                        yield {
                            **self._buttons(busy=False),
                            **self._update("stopped", f"Stopped; {model} goes on loading"),
                        }
                        return
                    yield self._update("loading", self.models.loading(model))
                    wait([future], timeout=0.5)
                pipe = future.result()
                index = pipe.resolve(label)
                params = pipe.params(
                    cfg_scale=cfg_scale, temperature=temperature, top_k=top_k, top_p=top_p
                )
                pictures = check_count(count)
                drawn_with = (
                    random.randrange(MAX_SEED + 2 - pictures) if random_seed else check_seed(seed)
                )
                check_seed(drawn_with + pictures - 1)
                yield from self._draw(
                    drawing,
                    pipe,
                    index,
                    params,
                    range(drawn_with, drawn_with + pictures),
                    preview_every,
                )
            except Exception as error:
                yield {**self._buttons(busy=False), **self._update("failed", explain(error))}
                if isinstance(error, AimError):
                    raise gr.Error(str(error), print_exception=False) from error
                raise

    def _draw(
        self,
        drawing: Drawing,
        pipe: Pipeline,
        index: int,
        params: SamplingParams,
        seeds: range,
        preview_every: int,
    ) -> Iterator[Update]:
        screen = self.screen
        frames: list[Image.Image] = []
        picture: str | None = None
        requests = [Request(pipe.row(index), params, seed, COUNT_EVERY) for seed in seeds]
        several = len(requests) > 1
        for view in drawing.views(pipe, requests, preview_every):
            if view.image is not None:
                frames.append(view.image)
                picture = keep(preview_png(view.image), "preview.png", screen.picture)
            update = self._update(view.state, describe_view(view), view, picture)
            if view.state == "stopped":
                update.update(self._buttons(busy=False))
            if view.state == "done":
                each = [pipe.parameters(index, seed, params) for seed in seeds]
                parameters = {**each[0], "count": len(each)} if several else each[0]
                stem = write.file_stem(f"{pipe.name} {pipe.title(index)} seed {seeds[0]}")
                png = keep(
                    write.png_bytes(frames[-1], parameters),
                    f"{stem}{f'-and-{len(each) - 1}' * several}.png",
                    screen.png,
                )
                update.update({screen.picture: png, screen.png: png})
                yield update  # the GIF takes a moment: the picture does not wait for it
                gif, film = _animations(frames)
                made = [(png, parameters)]
                if several:
                    stems = [
                        write.file_stem(f"{pipe.name} {pipe.title(index)} seed {seed}")
                        for seed in seeds
                    ]
                    pngs = [write.png_bytes(*one) for one in zip(view.images, each, strict=True)]
                    made = [
                        (keep(one, f"{name}.png", screen.png), own)
                        for one, name, own in zip(pngs, stems, each, strict=True)
                    ]
                update[screen.gif] = keep(gif, f"{stem}.gif", screen.gif)
                update[screen.made] = Made(tuple(made), keep(film, f"{stem}.mp4", screen.png))
                update.update({screen.parameters: parameters, **self._buttons(busy=False)})
            yield update

    def _update(
        self, state: str, text: str, view: View | None = None, picture: str | None = None
    ) -> Update:
        """What there is to see, and nothing to take home yet. Whole: a program that reads the
        stream sees no gaps.
        """
        screen = self.screen
        nothing = dict.fromkeys((screen.png, screen.gif, screen.parameters, screen.made))
        return {screen.picture: picture, screen.progress: status(state, text, view), **nothing}

    def _buttons(self, *, busy: bool) -> Update:
        return {
            self.screen.start: gr.update(interactive=not busy),
            self.screen.stop: gr.update(interactive=busy),
        }

    def _model(self, name: str) -> Pipeline:
        return self.models.get(name or self.models.default)


def _animations(frames: list[Image.Image]) -> tuple[bytes, bytes]:
    """The drawing as it was shown, at a size to look at: GIF and MP4."""
    fps = min(20.0, max(2.0, len(frames) / GIF_SECONDS))
    return write.gif_bytes(frames, fps, at_least=write.GIF_SIZE), write.mp4_bytes(
        frames, fps, at_least=write.GIF_SIZE
    )
