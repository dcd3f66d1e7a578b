"""What the Inside tab does: draw a picture with notes on every code, and show them as maps and in
words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from gradio.components import Component

from aim.checks import whole
from aim.config import MAX_SEED, check_seed
from aim.engine import Request
from aim.pipeline import Pipeline
from aim.ui.inside.maps import MAPS, draw_map, place_of, table
from aim.ui.models import Models
from aim.ui.stage.drawing import COUNT_EVERY, Drawing
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

    picture: Component
    progress: Component
    chart: Component
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


class InsideActions:
    """The handlers of the tab."""

    def __init__(self, models: Models, sessions: Sessions[Drawing], screen: InsideScreen) -> None:
        self.models, self.sessions, self.screen = models, sessions, screen

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
                drawn_with = random.randrange(MAX_SEED + 1) if random_seed else check_seed(seed)
                yield {screen.seed: drawn_with}
                asked = Request(pipe.row(index), params, drawn_with, COUNT_EVERY, explain=True)
                for view in drawing.views(pipe, [asked], PREVIEW_EVERY):
                    update: Update = {
                        screen.progress: status(view.state, describe_view(view), view)
                    }
                    if view.image is not None:
                        update[screen.picture] = keep(
                            preview_png(view.image), "preview.png", screen.picture
                        )
                    if (
                        view.codes
                        and view.notes is not None
                        and (view.image is not None or view.state == "done")
                    ):
                        seen = Seen(pipe, view.codes[0], view.notes)
                        update |= self.show(kind, seen)
                        if view.state == "done":
                            update |= {screen.notes: seen, **self.tell(row, column, seen)}
                    yield update
            except Exception as error:
                yield {**self._busy(False), screen.progress: status("failed", explain(error))}
                raise
            yield self._busy(False)

    def show(self, kind: str, seen: Seen | None) -> Update:
        """The map of one kind, with its key."""
        if seen is None:
            return {self.screen.key: MAPS[kind].explanation}
        pipe = seen.pipe
        image, key = draw_map(
            kind, seen.codes, seen.notes, pipe.colours(), pipe.tokenizer.config.grid
        )
        return {
            self.screen.chart: keep(preview_png(image), "map.png", self.screen.chart),
            self.screen.key: key,
        }

    def tell(self, row: Any, column: Any, seen: Seen | None) -> Update:
        """The choice at one place, rows and columns counted from 1."""
        if seen is None:
            return {self.screen.choice: ""}
        pipe = seen.pipe
        grid = pipe.tokenizer.config.grid
        row, column = whole("row", row, 1, grid), whole("column", column, 1, grid)
        place = (row - 1) * grid + column - 1
        return {self.screen.choice: table(place, seen.codes, seen.notes, pipe.colours(), grid)}

    def point(self, seen: Seen | None, event: gr.SelectData) -> tuple[int, int]:
        """Row and column, from 1, of the code that was clicked on the map."""
        pipe = seen.pipe if seen else self.models.get(self.models.default)
        grid = pipe.tokenizer.config.grid
        row, column = divmod(place_of(event.index[0], event.index[1], grid), grid)
        return row + 1, column + 1

    def _busy(self, busy: bool) -> Update:
        return {
            self.screen.start: gr.update(interactive=not busy),
            self.screen.stop: gr.update(interactive=busy),
        }
