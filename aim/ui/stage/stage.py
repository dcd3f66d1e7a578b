"""The stage: where pictures are drawn. The server sends what was settled, and the browser shows it
code by code, at a pace to look at.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aim.pipeline import Pipeline
from aim.ui.assets import text
from aim.ui.stage.drawing import View
from aim.ui.stage.widgets import Shown

_runs = itertools.count(1)


class Stage(Shown):
    """A canvas for 1, 4 or 9 pictures, with what plays and saves them.

    The value is a dictionary: ``run`` changes with each drawing; ``grid`` codes each way; ``pictures`` of them, in
    ``columns``; ``colours`` of each, the codes so far as base64 of their RGB, four letters a code;
    ``image``, a file of Gradio's or the address of one, with all pictures side by side, and
    ``covers``, how many codes of each are in it; ``state`` as of a ``View``; ``name`` of what can
    be saved, ``title`` and ``note`` in words, ``loop`` for a recording that plays again and again.
    """

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        templates = {
            "html_template": text("stage/stage.html"),
            "js_on_load": text("stage/stage.js"),
        }
        super().__init__(value, **{**templates, **kwargs})

    def api_info(self) -> dict[str, Any]:
        """A dictionary."""
        return {"type": "object"}


class Reel:
    """What a ``Stage`` shows of one drawing, as it comes."""

    def __init__(self, pipe: Pipeline, title: str, pictures: int = 1) -> None:
        self._palette = pipe.colours()
        self._value = {
            "run": f"{next(_runs)}",
            "title": title,
            "grid": pipe.tokenizer.config.grid,
            "pictures": pictures,
            "columns": math.isqrt(pictures - 1) + 1,
        }
        self._image: dict[str, Any] = {"image": None, "covers": 0}

    def show(self, view: View, path: str | None = None, **more: Any) -> dict[str, Any]:
        """The value for a moment of the drawing; ``path`` is a file that the page serves, with the
        view's image.
        """
        if path is not None:
            covers = min(map(len, view.codes), default=0)
            self._image = {"image": served(path), "covers": covers}
        colours = [encoded(self._palette, codes) for codes in view.codes]
        return {**self._value, "state": view.state, "colours": colours, **self._image, **more}


def encoded(palette: np.ndarray, codes: np.ndarray | Sequence[int]) -> str:
    """Codes (n,) in the colours (V, 3) of the codebook, as base64: what is known stays as it is
    when more comes, so that Gradio sends only what is new.
    """
    return base64.b64encode(palette[np.asarray(codes, np.int64)].tobytes()).decode()


def served(path: str) -> dict[str, Any]:
    """A file in Gradio's cache, as the browser gets it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
