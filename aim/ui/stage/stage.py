"""The stage: where pictures are drawn. The server sends what was settled, and the browser shows it
code by code, at a pace to look at.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aim.ui.assets import text
from aim.ui.stage.widgets import Shown


class Stage(Shown):
    """A canvas for 1, 4 or 9 pictures, with what plays and saves them.

    The value is a dictionary: ``run`` changes with each drawing; ``grid`` codes each way;
    ``pictures`` of them, in ``columns``; ``colours`` of each, the codes so far as base64 of their
    RGB, four letters a code; ``image``, a file of Gradio's or the address of one, with all pictures
    side by side, and ``covers``, how many codes of each are in it; ``state`` as of a ``View``;
    ``made``, the pictures as of ``Drawn.told`` once they can be saved, and ``opens`` where a click
    on one shows it large; ``title`` and ``note`` in words, ``loop`` for a recording that
    plays again and again, ``begin`` for codes that need no showing. A click on a picture tells
    which ``picture``, ``line`` and ``column``, from 0.
    """

    beside: str | None = None  # a folder with what stands beside and below the picture

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        html, script = text("stage/stage.html"), text("stage/film.js") + text("stage/stage.js")
        if self.beside:
            for place in ("beside", "below"):
                with suppress(FileNotFoundError):
                    part = text(f"{self.beside}/{place}.html")
                    html = html.replace(f"<!-- {place} -->", part)
            script += text(f"{self.beside}/beside.js")
        super().__init__(value, **{"html_template": html, "js_on_load": script, **kwargs})

    def api_info(self) -> dict[str, Any]:
        """A dictionary."""
        return {"type": "object"}
