"""What somebody made in one visit: a gallery whose pictures give their settings back, a zip of all,
a link, a PNG that is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from aim.config import INDEX, SamplingParams
from aim.ui.drawings import Drawings
from aim.ui.generate.handlers import Made
from aim.ui.stage.updates import Update, keep

MOST = 200  # pictures of a visit that are kept


class Picture(NamedTuple):
    """One picture of the visit; ``name`` is that of its drawing."""

    path: str
    name: str
    parameters: dict[str, Any]

    @property
    def caption(self) -> str:
        """Its settings in one line."""
        p = self.parameters
        sampling = SamplingParams(**{name: p[name] for name in INDEX}).describe()
        return f"{p['class_name']}, seed {p['seed']}, {sampling}, {p['model']}"


class VisitScreen(NamedTuple):
    """The components that a visit writes to."""

    gallery: Component
    pictures: Component
    pack: Component
    names: Component
    seed: Component


def collect(
    screen: VisitScreen, drawings: Drawings, made: Made | None, pictures: Sequence[Picture]
) -> Update:
    """Add what was made to the visit; the newest comes first."""
    drawn = drawings.get(made.name) if made else None
    if made is None or drawn is None:
        return {screen.names: gr.skip()}
    if len(drawn.codes) == 1:
        paths = [made.png]
    else:
        images = drawn.pipe.pictures(drawn.codes)
        paths = [
            keep(drawn.png(i, images=images), f"{drawn.stem(i)}.png", screen.gallery)
            for i in range(len(images))
        ]
    each = zip(paths, drawn.parameters, strict=True)
    # on a full disk there is no file to show; the stage still saves what was drawn
    new = [Picture(path, made.name, parameters) for path, parameters in each if path]
    grown = [*new, *pictures][:MOST]
    names = dict.fromkeys(picture.name for picture in reversed(grown))
    return {
        screen.gallery: [(picture.path, picture.caption) for picture in grown],
        screen.pictures: grown,
        screen.pack: gr.update(interactive=True),
        screen.names: ",".join(names),
        screen.seed: drawn.parameters[0]["seed"],
    }
