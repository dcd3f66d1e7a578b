"""What the Inside tab does: draw a picture with notes on every code, and show them as maps and in
words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from gradio.components import Component

from aim.checks import whole
from aim.engine import Request
from aim.pipeline import Pipeline
from aim.ui.drawings import Drawings, Drawn
from aim.ui.generate.handlers import stopped
from aim.ui.inside.maps import MAPS, drawn_map, table
from aim.ui.models import Models
from aim.ui.settings.recall import seed_to_draw
from aim.ui.stage.drawing import COUNT_EVERY, Drawing
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
)

PREVIEW_EVERY = 8


class InsideScreen(NamedTuple):
    """The components that looking inside writes to."""

    stage: Component
    progress: Component
    key: Component
    choice: Component
    notes: Component
    start: Component
    stop: Component
    seed: Component


class Seen(NamedTuple):
    """What is known of a picture."""

    pipe: Pipeline  # that drew it
    codes: np.ndarray  # (n,)
    notes: np.ndarray  # (n, 13)
    value: dict[str, Any]  # of the stage, without a map


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
                index = pipe.resolve(label)
                params = pipe.params(**sampling)
                drawn_with = seed_to_draw(seed, random_seed)
                yield {screen.seed: drawn_with}
                asked = Request(pipe.row(index), params, drawn_with, COUNT_EVERY, explain=True)
                reel = Reel(pipe, pipe.title(index))
                for view in drawing.views(pipe, [asked], PREVIEW_EVERY):
                    told = status(view.state, describe_view(view), view)
                    yield {screen.progress: told}
                    if view.notes is None or not view.codes:
                        continue
                    path, made = None, None
                    if view.image is not None:
                        path = keep(preview_png(view.image), "preview.png", screen.stage)
                    if view.state == "done":
                        parameters = pipe.parameters(index, drawn_with, params)
                        drawn = Drawn(pipe, view.codes, (parameters,))
                        self.drawings.remember(drawn, view.images)
                        made = drawn.told()
                    elif view.state == "stopped":
                        seeds = range(drawn_with, drawn_with + 1)
                        made = stopped(pipe, index, seeds, params, view.codes)
                    seen = Seen(pipe, view.codes[0], view.notes, reel.show(view, path, made=made))
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
        beside, key = drawn_map(kind, seen.codes, seen.notes, seen.pipe.colours())
        return {self.screen.stage: {**seen.value, "map": beside}, self.screen.key: key}

    def tell(self, row: Any, column: Any, seen: Seen | None) -> Update:
        """The choice at one place, rows and columns counted from 1."""
        if seen is None:
            return {self.screen.choice: ""}
        pipe = seen.pipe
        grid = pipe.tokenizer.config.grid
        row, column = whole("row", row, 1, grid), whole("column", column, 1, grid)
        place = (row - 1) * grid + column - 1
        return {
            self.screen.choice: table(place, seen.codes, seen.notes, pipe.colours(), grid),
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
