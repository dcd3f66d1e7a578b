"""What somebody made in one visit: a gallery whose pictures give their settings back, a zip of all,
a link, a PNG that is read again.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import gradio as gr
from gradio.components import Component

from aim.errors import AimError
from aim.images import read
from aim.ui.generate.handlers import Made
from aim.ui.generate.recall import NAMES
from aim.ui.stage.updates import Update, keep

MOST = 200  # pictures of a visit that are kept


class Picture(NamedTuple):
    """One picture of the visit."""

    path: str
    parameters: dict[str, Any]

    @property
    def caption(self) -> str:
        """Its settings in one line."""
        p = self.parameters
        sampling = f"guidance {p['cfg_scale']:g}, temperature {p['temperature']:g}"
        limits = (f", top-k {p['top_k']}" if p["top_k"] else "") + (
            f", top-p {p['top_p']:g}" if p["top_p"] < 1 else ""
        )
        return f"{p['class_name']}, seed {p['seed']}, {sampling}{limits}, {p['model']}"


class VisitScreen(NamedTuple):
    """The components that a visit writes to."""

    gallery: Component
    pictures: Component
    pack: Component
    film: Component


def collect(screen: VisitScreen, made: Made | None, pictures: Sequence[Picture]) -> Update:
    """Add what was made to the visit; the newest comes first."""
    if made is None:
        return {screen.film: gr.skip()}
    new = [Picture(path, parameters) for path, parameters in made.pictures]
    grown = [*new, *pictures][:MOST]
    return {
        screen.gallery: [(picture.path, picture.caption) for picture in grown],
        screen.pictures: grown,
        screen.pack: gr.update(
            value=keep(zip_bytes(grown), "aim-pictures.zip", screen.pack), interactive=True
        ),
        screen.film: gr.update(value=made.film, interactive=True),
    }


def zip_bytes(pictures: Sequence[Picture]) -> bytes:
    """All pictures of a visit that are still there, named and numbered in the order in which they
    were made.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
        for number, picture in enumerate(reversed(pictures), 1):
            path = Path(picture.path)
            if path.is_file():  # what is older than an hour is deleted
                archive.write(path, f"{number:03d}-{path.name}")
    return out.getvalue()


def read_png(path: str) -> dict[str, Any]:
    """The parameters in a PNG that somebody dropped; gr.Error in words if there are none."""
    try:
        return read.read_parameters(path)
    except AimError as error:
        raise gr.Error(str(error), print_exception=False) from error


def query(**values: Any) -> str:
    """Settings as the part of a link behind the question mark."""
    return urlencode({name: values[name] for name in NAMES if values.get(name) is not None})
