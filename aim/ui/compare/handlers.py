"""What the Compare tab does: a grid over two settings, the way between two classes, each as one
labelled picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component
from PIL import Image

from aim import compare
from aim.compare import Axis, Comparison
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.models import Models
from aim.ui.settings.recall import check_typed
from aim.ui.stage.drawing import Drawing
from aim.ui.stage.movie import PAPER
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import (
    Update,
    awaited,
    describe_view,
    explain,
    keep,
    preview_png,
    status,
)

PREVIEW_EVERY = 16  # codes of each


class CompareScreen(NamedTuple):
    """The components that comparing writes to; the API returns the first three."""

    picture: Component
    progress: Component
    png: Component
    starts: tuple[Component, Component]
    stop: Component


class CompareActions:
    """The handlers of the tab."""

    def __init__(self, models: Models, screen: CompareScreen) -> None:
        self.models, self.screen = models, screen
        self.sessions = Sessions(Drawing, models.line)

    def sweep(
        self,
        label: Any,
        across: str,
        across_values: str,
        down: str,
        down_values: str,
        seed: Any,
        model: str,
        request: gr.Request,
        **sampling: Any,
    ) -> Iterator[Update]:
        """Draw every combination of two settings with one seed; values have commas between them.
        Returns one labelled picture.

        Settings are any sampling parameter, seed and class; the rest is the same in all.
        """

        def plan(pipe: Pipeline) -> tuple[Comparison, dict[str, Any]]:
            first, second = Axis.parse(across, across_values), Axis.parse(down, down_values)
            params, drawn_with = pipe.params(**sampling), check_typed(seed)
            about = {axis.name: list(axis.values) for axis in (first, second)}
            return compare.sweep(pipe, first, second, label, drawn_with, params), {
                "class": pipe.resolve(label),
                "seed": seed,
                **asdict(params),
                **about,
            }

        yield from self._draw("sweep", model, plan, request)

    def blend(
        self,
        first: Any,
        second: Any,
        steps: Any,
        seed: Any,
        model: str,
        request: gr.Request,
        **sampling: Any,
    ) -> Iterator[Update]:
        """Draw the way from one class to another with one seed, both ends included. Returns one
        labelled picture.
        """

        def plan(pipe: Pipeline) -> tuple[Comparison, dict[str, Any]]:
            params = pipe.params(**sampling)
            planned = compare.blend(pipe, first, second, steps, check_typed(seed), params)
            ends = [pipe.resolve(label) for label in (first, second)]
            return planned, {"classes": ends, "steps": int(steps), "seed": seed, **asdict(params)}

        yield from self._draw("blend", model, plan, request)

    def stop(self, request: gr.Request) -> None:
        """Stop what this session compares."""
        self.sessions.stop(request.session_hash or "")

    def _draw(
        self,
        kind: str,
        model: str,
        plan: Callable[[Pipeline], tuple[Comparison, dict[str, Any]]],
        request: gr.Request,
    ) -> Iterator[Update]:
        screen = self.screen
        with self.sessions.one(request) as drawing:
            yield {**self._busy(True), **self._seen(status("starting", "Starting …"))}
            try:
                pipe = yield from awaited(
                    self.models,
                    model,
                    lambda *told: {**self._busy(told[0] == "loading"), **self._seen(status(*told))},
                    lambda: drawing.stopped,
                )
                if pipe is None:
                    return
                comparison, about = plan(pipe)
                side = pipe.tokenizer.config.output_size
                kept: str | None = None  # what there is to see until there is more
                blank = Image.new("RGB", (side, side), PAPER)

                def arrange(images: Sequence[Image.Image | None]) -> Image.Image:
                    return comparison.grid(
                        [write.flatten(i, PAPER) if i else blank for i in images]
                    )

                for view in drawing.views(pipe, comparison.requests, PREVIEW_EVERY, arrange):
                    words = {"done": f"{view.total} codes", "stopped": view.note or "Stopped"}
                    shown = status(view.state, words.get(view.state, describe_view(view)), view)
                    picture = path = None
                    if view.image is not None and view.state != "done":
                        picture = keep(preview_png(view.image), "preview.png", screen.picture)
                    elif view.image is not None:
                        png = write.png_bytes(view.image, compare.parameters(pipe, kind, **about))
                        name = f"{write.file_stem(f'{pipe.name} {kind}')}.png"
                        picture = path = keep(png, name, screen.png)
                    busy = {} if view.state not in words else self._busy(False)
                    yield {**busy, **self._seen(shown, picture or kept, path)}
                    kept = picture or kept
            except Exception as error:
                yield {**self._busy(False), **self._seen(status("failed", explain(error)))}
                raise

    def _seen(
        self, shown: dict[str, Any], picture: str | None = None, png: str | None = None
    ) -> Update:
        return {self.screen.picture: picture, self.screen.progress: shown, self.screen.png: png}

    def _busy(self, busy: bool) -> Update:
        starts = {start: gr.update(interactive=not busy) for start in self.screen.starts}
        return {**starts, self.screen.stop: gr.update(interactive=busy)}
