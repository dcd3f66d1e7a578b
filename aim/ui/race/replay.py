"""The replay: two pictures come in a browser as two models drew them, code by code."""

from __future__ import annotations

from typing import Any

from aim.ui.assets import text
from aim.ui.stage.widgets import Shown


class Replay(Shown):
    """Two models' pictures, on the stage's canvas, at the pace of two measured runs; nothing is
    shown before there is a value, and None leaves the last one where it ended. Where there is a
    ``recorded`` one it is fetched when this is first seen, for who never looks.

    The value is a dictionary: ``run`` changes with each race, ``grid`` codes each way, ``pictures``
    shown in ``columns``, ``badge`` says where it was measured and ``result`` who was first; a
    ``fresh`` one comes into view. Two ``racers``, each with ``name``, ``kind``, ``code_seconds``
    (codes,), ``seconds`` to the picture, ``colours`` and ``image`` as of a ``Stage``, ``arrival``
    and ``alt`` in words.
    """

    def __init__(
        self, value: dict[str, Any] | None = None, *, recorded: bool = False, **kwargs: Any
    ) -> None:
        templates = {
            "html_template": text("race/replay.html"),
            "js_on_load": text("stage/film.js") + text("race/replay.js"),
        }
        super().__init__(value, recorded=recorded, **{**templates, **kwargs})
