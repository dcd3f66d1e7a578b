"""What the Inside tab does: draw a picture with notes on every code, and show them as maps and in
words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from gradio.components import Component

from aim.checks import whole
from aim.config import SamplingParams
from aim.engine import Request
from aim.pipeline import Pipeline
from aim.ui.drawings import Drawings, Drawn, stopped
from aim.ui.inside.maps import GUESSES, MAPS, drawn_map, table
from aim.ui.models import Models
from aim.ui.settings.recall import recall, seed_to_draw
from aim.ui.stage.drawing import COUNT_EVERY, Drawing
from aim.ui.stage.reel import Reel, encoded
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

PREVIEW_EVERY = 8


class InsideScreen(NamedTuple):
    """The components that looking inside writes to, and what is asked of it."""

    stage: Component
    progress: Component
    key: Component
    choice: Component
    notes: Component
    start: Component
    stop: Component
    seed: Component
    kind: Component
    row: Component
    column: Component


class Plan(NamedTuple):
    """What is to be drawn."""

    parameters: dict[str, Any]
    params: SamplingParams
    kept: Sequence[int] | np.ndarray = ()  # codes that are given


class Seen(NamedTuple):
    """What is known of a picture."""

    pipe: Pipeline  # that drew it
    codes: np.ndarray  # (n,)
    notes: np.ndarray  # (n, 13)
    value: dict[str, Any]  # of the stage, without a map and guesses
    kept: int  # of the codes, those that were given
    guesses: np.ndarray | None = None  # (n,) of the codes that follow


class InsideActions:
    """The handlers of the tab."""

    def __init__(
        self,
        models: Models,
        sessions: Sessions[Drawing],
        screen: InsideScreen,
        drawings: Drawings,
    ) -> None:
        self.models, self.sessions, self.screen = models, sessions, screen
        self.drawings = drawings

    def draw(
        self,
        label: Any,
        model: str,
        seed: Any,
        random_seed: bool,
        kind: str,
        row: Any,
        column: Any,
        request: gr.Request,
        **sampling: Any,
    ) -> Iterator[Update]:
        """Draw a picture, its map growing with it."""

        def plan(pipe: Pipeline) -> Plan:
            params, drawn_with = pipe.params(**sampling), seed_to_draw(seed, random_seed)
            return Plan(pipe.parameters(label, drawn_with, params), params)

        yield from self._draw(model, plan, kind, row, column, request)

    def open(
        self, kind: str, row: Any, column: Any, request: gr.Request, event: gr.EventData
    ) -> Iterator[Update]:
        """Draw a picture of the visit again; rows that it kept of another one are given."""
        wanted = recall(event._data["parameters"], self.models)

        def plan(pipe: Pipeline) -> Plan:
            params = pipe.params(**wanted.sampling)
            parameters = pipe.parameters(wanted.label, wanted.seed, params)  # type: ignore[arg-type]
            if "rows_kept" not in event._data["parameters"]:
                return Plan(parameters, params)
            drawn = Drawn.of([event._data], self.models)
            rows = drawn.parameters[0]["rows_kept"]
            kept = drawn.codes[0][: rows * pipe.tokenizer.config.grid]
            return Plan({**parameters, "rows_kept": rows}, params, kept)

        yield from self._draw(wanted.model or "", plan, kind, row, column, request)

    def _draw(
        self,
        model: str,
        plan: Callable[[Pipeline], Plan],
        kind: str,
        row: Any,
        column: Any,
        request: gr.Request,
    ) -> Iterator[Update]:
        screen = self.screen
        with self.sessions.one(request) as drawing:
            yield {**self._busy(True), screen.progress: status("starting", "Starting …")}
            try:
                pipe = yield from awaited(
                    self.models,
                    model,
                    lambda *told: {screen.progress: status(*told)},
                    lambda: drawing.stopped,
                )
                if pipe is None:
                    yield self._busy(False)
                    return
                parameters, params, kept = plan(pipe)
                index, seed = parameters["class"], parameters["seed"]
                yield {screen.seed: seed}
                asked = Request(
                    pipe.row(index), params, seed, COUNT_EVERY, explain=True, prefix=kept
                )
                reel = Reel(pipe, pipe.title(index), begin=len(kept))
                for view in drawing.views(pipe, [asked], PREVIEW_EVERY):
                    told = status(view.state, describe_view(view), view)
                    yield {screen.progress: told}
                    if view.notes is None or not view.codes:
                        continue
                    path, made = None, None
                    if view.image is not None:
                        path = keep(preview_png(view.image), "preview.png", screen.stage)
                    if view.state == "done":
                        drawn = Drawn(pipe, view.codes, (parameters,))
                        self.drawings.remember(drawn, view.images)
                        made = drawn.told()
                    elif view.state == "stopped":
                        made = stopped(pipe, view.codes, [parameters])
                    value = reel.show(view, path, made=made)
                    seen = Seen(pipe, view.codes[0], view.notes, value, len(kept), view.guesses)
                    yield self.show(kind, seen)
                    if view.state in ("done", "stopped"):
                        yield {screen.notes: seen, **self.tell(row, column, seen)}
            except Exception as error:
                yield {**self._busy(False), screen.progress: status("failed", explain(error))}
                raise
            yield self._busy(False)

    def show(self, kind: str, seen: Seen | None) -> Update:
        """The map of one kind, with its key."""
        if seen is None:
            return {self.screen.key: MAPS[kind].explanation}
        palette, value = seen.pipe.colours(), seen.value
        beside, key = drawn_map(kind, seen.codes, seen.notes, palette, seen.kept)
        if seen.guesses is not None and len(seen.guesses):
            value = {**value, "guesses": encoded(palette, seen.guesses)}
            key = f"{key} {GUESSES}"
        return {self.screen.stage: {**value, "map": beside}, self.screen.key: key}

    def tell(self, row: Any, column: Any, seen: Seen | None) -> Update:
        """The choice at one place, rows and columns counted from 1."""
        if seen is None:
            return {self.screen.choice: ""}
        pipe = seen.pipe
        grid = pipe.tokenizer.config.grid
        row, column = whole("row", row, 1, grid), whole("column", column, 1, grid)
        place = (row - 1) * grid + column - 1
        html = table(place, seen.codes, seen.notes, pipe.colours(), grid, seen.kept)
        return {
            self.screen.choice: html,
            self.screen.stage: gr.update(mark={"line": row - 1, "column": column - 1}),
        }

    def point(self, event: gr.EventData) -> tuple[int, int]:
        """Row and column, from 1, of the code that was clicked."""
        return int(event.line) + 1, int(event.column) + 1

    def _busy(self, busy: bool) -> Update:
        return {
            self.screen.start: gr.update(interactive=not busy),
            self.screen.stop: gr.update(interactive=busy),
        }
