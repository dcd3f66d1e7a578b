"""What the Explore tab does: draw on from any row of a picture, drawn or given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from aim.engine import Request
from aim.errors import AimError
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui import uploads
from aim.ui.drawings import Drawings, Drawn, caption, stopped
from aim.ui.explore.branches import GIVEN, Branch, parent_of, tree
from aim.ui.models import Models
from aim.ui.settings.recall import seed_to_draw
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
    warn,
)

PREVIEW_EVERY = 8


class ExploreScreen(NamedTuple):
    """The components that exploring writes to."""

    stage: Component
    progress: Component
    tree: Component
    rows: Component
    branches: Component
    chosen: Component
    start: Component
    stop: Component
    seed: Component


class ExploreActions:
    """The handlers of the tab. ``branches`` is what a session has made, ``chosen`` the number of
    the one to go on from, 0 for none.
    """

    def __init__(
        self,
        models: Models,
        sessions: Sessions[Drawing],
        screen: ExploreScreen,
        drawings: Drawings,
    ) -> None:
        self.models, self.sessions, self.screen = models, sessions, screen
        self.drawings = drawings

    def draw(
        self,
        label: Any,
        model: str,
        rows: Any,
        seed: Any,
        random_seed: bool,
        branches: Sequence[Branch],
        chosen: int,
        request: gr.Request,
        **sampling: Any,
    ) -> Iterator[Update]:
        """Keep the first ``rows`` rows of the chosen picture and draw the rest; with 0 rows a
        picture of its own.
        """
        with self.sessions.one(request) as drawing:
            yield {**self._busy(True), self.screen.progress: status("starting", "Starting …")}
            try:
                pipe = yield from awaited(
                    self.models,
                    model,
                    lambda *told: {self.screen.progress: status(*told)},
                    lambda: drawing.stopped,
                )
                if pipe is None:
                    yield self._busy(False)
                    return
                index = pipe.resolve(label)
                params = pipe.params(**sampling)
                drawn_with = seed_to_draw(seed, random_seed)
                yield {self.screen.seed: drawn_with}
                parent = parent_of(pipe, branches, chosen, rows)
                kept = parent.codes[: int(rows) * pipe.tokenizer.config.grid] if parent else ()
                asked = Request(pipe.row(index), params, drawn_with, COUNT_EVERY, prefix=kept)
                reel = Reel(pipe, pipe.title(index), begin=len(kept))
                parameters = pipe.parameters(index, drawn_with, params)
                parameters |= {"rows_kept": int(rows)} if parent else {}
                for view in drawing.views(pipe, [asked], PREVIEW_EVERY):
                    if view.state != "done":
                        yield self._seen(view, reel, parameters)
                    else:
                        settings = f"seed {drawn_with}, {params.describe()}"
                        cost = _cost(len(kept), view)
                        drawn = Drawn(pipe, view.codes, (parameters,))
                        self.drawings.remember(drawn, view.images)
                        told = status("done", describe_view(view), view)
                        yield {self.screen.progress: told} | self._grown(
                            pipe,
                            branches,
                            parent,
                            int(rows),
                            pipe.title(index),
                            settings,
                            cost,
                            view,
                            reel,
                            drawn.told(),
                        )
            except Exception as error:
                yield {**self._busy(False), self.screen.progress: status("failed", explain(error))}
                raise
            yield self._busy(False)

    def adopt(self, branches: Sequence[Branch], event: gr.EventData) -> Update:
        """A picture of the visit, to go on from; half of its rows are to be kept."""
        drawn = Drawn.of([event._data], self.models)
        pipe, codes, parameters = drawn.pipe, drawn.codes[0], drawn.parameters[0]
        grid = pipe.tokenizer.config.grid
        [image] = self.drawings.pictures(drawn)
        view = View("done", len(codes), len(codes), image=image, codes=(codes,))
        title, settings = pipe.title(parameters["class"]), caption(parameters).partition(", ")[2]
        reel = Reel(pipe, title, begin=len(codes))
        grown = self._grown(pipe, branches, None, 0, title, settings, "", view, reel, drawn.told())
        text = "Choose how many rows to keep, or click the picture where to cut, and press Draw."
        rows = min(grid // 2, len(codes) // grid)
        return {**grown, self.screen.rows: rows, self.screen.progress: status("done", text)}

    def take(self, path: str | None, model: str, branches: Sequence[Branch]) -> Update:
        """A picture that somebody dropped, as the tokenizer keeps it; half of its rows are to be
        kept.
        """
        if path is None:
            return {self.screen.progress: gr.skip()}
        try:
            pipe = self.models.get(model)
            codes = uploads.encoded(pipe, path)
        except AimError as error:
            warn(str(error))
            return {self.screen.progress: status("failed", explain(error))}
        grid = pipe.tokenizer.config.grid
        view = View("done", len(codes), len(codes), image=pipe.picture(codes), codes=(codes,))
        text = (
            f"Your picture as {grid}x{grid} codes keep it. Choose how many rows to keep, a "
            f"class, and press Draw."
        )
        reel = Reel(pipe, GIVEN, begin=len(codes))
        grown = self._grown(pipe, branches, None, 0, GIVEN, "", "encoded", view, reel)
        return {**grown, self.screen.rows: grid // 2, self.screen.progress: status("done", text)}

    def choose(self, branches: Sequence[Branch], event: gr.EventData) -> Update:
        """Go on from the picture that was clicked."""
        branch = branches[int(event.number) - 1]
        text = f"Drawing goes on from {branch.number}, of which the rows chosen are kept"
        return {
            self.screen.chosen: branch.number,
            self.screen.tree: tree(branches, branch.number),
            self.screen.stage: Reel(branch.pipe, branch.title, begin=branch.codes.size).show(
                View("done", 0, 0, codes=(branch.codes,)), branch.picture
            ),
            self.screen.progress: status("idle", text),
        }

    def cut(self, event: gr.EventData) -> int:
        """How many rows are kept where the picture was clicked: those above."""
        return int(event.line)

    def _seen(self, view: View, reel: Reel, parameters: dict[str, Any]) -> Update:
        path, made = None, None
        if view.image is not None:
            path = keep(preview_png(view.image), "preview.png", self.screen.stage)
        if view.state == "stopped":
            made = stopped(reel.pipe, view.codes, [parameters])
        said = status(view.state, describe_view(view), view)
        return {self.screen.progress: said, self.screen.stage: reel.show(view, path, made=made)}

    def _grown(
        self,
        pipe: Pipeline,
        branches: Sequence[Branch],
        parent: Branch | None,
        rows: int,
        title: str,
        settings: str,
        cost: str,
        view: View,
        reel: Reel,
        made: list[dict[str, Any]] | None = None,
    ) -> Update:
        assert view.image is not None
        number = len(branches) + 1
        stem = write.file_stem(f"{pipe.name} {number} {title}")
        path = keep(preview_png(view.image), f"{stem}.png", self.screen.stage)
        branch = Branch(
            number, parent.number if parent else 0, rows, title, settings, cost, pipe,
            view.codes[0], path,
        )  # fmt: skip
        grown = [*branches, branch]
        return {
            self.screen.stage: reel.show(view, path, made=made),
            self.screen.tree: tree(grown, number),
            self.screen.branches: grown,
            self.screen.chosen: number,
        }

    def _busy(self, busy: bool) -> Update:
        return {
            self.screen.start: gr.update(interactive=not busy),
            self.screen.stop: gr.update(interactive=busy),
        }


def _cost(kept: int, view: View) -> str:
    drawn = view.total - kept
    passed = f"one pass over {kept} codes and " if kept else ""
    return f"{passed}{drawn} codes drawn in {view.seconds:.2f} s"
