"""The replay: two grids that fill in a browser at the pace that was measured, code by code."""

from __future__ import annotations

from typing import Any

from aim.ui.assets import text
from aim.ui.stage.widgets import Shown


class Replay(Shown):
    """Two grids filling in at the pace of two measured runs; nothing is shown while the value is
    None.

    The value is a dictionary: ``grid`` codes each way, ``codes`` in a picture, ``pictures`` shown,
    ``columns`` of them, ``result`` in words, and two ``racers``, each with ``name``, ``kind``,
    ``code_seconds`` (codes,), ``seconds`` to the picture, ``sheet`` (a PNG of the pictures as a
    file of Gradio's), ``arrival`` and ``alt`` in words.
    """

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(
            value,
            **{
                "html_template": text("race/replay.html"),
                "js_on_load": text("race/replay.js"),
                **kwargs,
            },
        )
