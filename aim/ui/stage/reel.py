"""What a ``Stage`` shows of a drawing: the codes so far as colours, and the image there is of
them.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aim.pipeline import Pipeline
from aim.ui.stage.drawing import View

_runs = itertools.count(1)


class Reel:
    """What a ``Stage`` shows of one drawing, as it comes."""

    def __init__(self, pipe: Pipeline, title: str, pictures: int = 1, begin: int = 0) -> None:
        """``begin`` codes are there from the first moment on."""
        self.pipe, self._palette = pipe, pipe.colours()
        self._value = {
            "run": f"{next(_runs)}",
            "title": title,
            "grid": pipe.tokenizer.config.grid,
            "pictures": pictures,
            "columns": math.isqrt(pictures - 1) + 1,
            "begin": begin,
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
