"""The rest of a picture of one's own, drawn for a program that gave its first rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.components import Component

from aim.checks import whole
from aim.engine import Request
from aim.errors import InvalidInput
from aim.images import write
from aim.ui import uploads
from aim.ui.models import Models
from aim.ui.settings.recall import check_typed
from aim.ui.stage.drawing import COUNT_EVERY, Drawing
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import describe_view, keep, preview_png, status

PREVIEW_EVERY = 8


class Completion:
    """The handler; ``picture`` is the component that it writes to."""

    def __init__(self, models: Models, sessions: Sessions[Drawing], picture: Component) -> None:
        self.models, self.sessions, self.picture = models, sessions, picture

    def complete(
        self,
        picture: str | None,
        rows: Any,
        label: Any,
        seed: int,
        model: str,
        request: gr.Request,
        **sampling: Any,
    ) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Keep the first rows of a picture, of any size and format, and draw the rest as a class.
        Streams the picture and the progress.
        """
        with self.sessions.one(request) as drawing:
            yield None, status("starting", "Starting …")  # or a cancelled run is never closed
            pipe = self.models.get(model or self.models.default)
            grid = pipe.tokenizer.config.grid
            if picture is None:
                raise InvalidInput("there is no picture; give one to be finished")
            rows = whole("rows", rows, 1, grid - 1)
            index = pipe.resolve(label)
            params = pipe.params(**sampling)
            kept = uploads.encoded(pipe, picture)[: rows * grid]
            shown: str | None = None
            row, drawn_with = pipe.row(index), check_typed(seed)
            asked = Request(row, params, drawn_with, COUNT_EVERY, prefix=kept)
            for view in drawing.views(pipe, [asked], PREVIEW_EVERY):
                if view.state == "done" and view.image is not None:
                    made = {**pipe.parameters(index, seed, params), "rows_kept": rows}
                    stem = write.file_stem(f"{pipe.name} {pipe.title(index)} seed {seed} completed")
                    shown = keep(write.png_bytes(view.image, made), f"{stem}.png", self.picture)
                elif view.image is not None:
                    shown = keep(preview_png(view.image), "preview.png", self.picture)
                yield shown, status(view.state, describe_view(view), view)
