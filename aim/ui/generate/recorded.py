"""The drawings that the page shows before anybody has asked for one: codes of the bundled model, as
they were drawn once. ``python -m aim.ui.record`` draws them anew.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.assets import text
from aim.ui.stage.reel import encoded

FILE = "generate/recorded.json"
PLAYED = 4  # of them, seen being drawn
CHIP = 64  # pixels of a picture to click


class Recorded(NamedTuple):
    """One drawing."""

    label: int
    seed: int
    codes: np.ndarray  # (num_tokens,) int64


class Recording(NamedTuple):
    """What ``model`` of ``version`` drew on ``machine``."""

    model: str
    version: str
    machine: str
    drawings: tuple[Recorded, ...]

    def of(self, pipe: Pipeline) -> bool:
        """Whether ``pipe`` is what drew it, and can show it."""
        return (self.model, self.version) == (pipe.name, pipe.version)


def recording() -> Recording:
    """What is in the file."""
    told = json.loads(text(FILE))
    drawings = tuple(
        Recorded(one["class"], one["seed"], unpacked(one["codes"])) for one in told["drawings"]
    )
    return Recording(told["model"], told["version"], told["machine"], drawings)


def opening(pipe: Pipeline) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """What a ``Stage`` plays before the first click, and the pictures to click; nothing where the
    recording is of another model than ``pipe``.
    """
    found = recording()
    if not found.of(pipe):
        return None, []
    images = pipe.pictures(one.codes for one in found.drawings)
    palette = pipe.colours()
    played = found.drawings[:PLAYED]
    value = {
        "run": "recorded",
        "title": "A recorded drawing",
        "note": f"Recorded: {found.model} on {found.machine}",
        "loop": True,
        "state": "done",
        "grid": pipe.tokenizer.config.grid,
        "pictures": PLAYED,
        "columns": 2,
        "colours": [encoded(palette, one.codes) for one in played],
        "image": address(write.mosaic(images[:PLAYED]), 90),
        "covers": len(played[0].codes),
    }
    chips = [
        {
            "index": one.label,
            "name": pipe.labels.name(one.label),
            "image": address(image.resize((CHIP, CHIP), Image.Resampling.LANCZOS), 70),
        }
        for one, image in zip(found.drawings, images, strict=True)
    ]
    return value, chips


def packed(codes: np.ndarray) -> str:
    """Codes (n,) as text of the file."""
    return base64.b64encode(codes.astype("<u2").tobytes()).decode()


def unpacked(letters: str) -> np.ndarray:
    """What ``packed`` made of codes: (n,) int64."""
    return np.frombuffer(base64.b64decode(letters), "<u2").astype(np.int64)


def address(image: Image.Image, quality: int) -> str:
    """An image as an address that needs no request."""
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
