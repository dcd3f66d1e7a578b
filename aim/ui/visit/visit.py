"""What somebody made in one visit: pictures that are shown large when they are clicked, and go on
from there to any tab. The browser keeps them, as codes and settings, over a reload, too.
"""

from __future__ import annotations

from typing import Any

from aim.ui.assets import text
from aim.ui.stage.widgets import Shown


class Visit(Shown):
    """The pictures, newest first, and the one that is shown large. It takes what a ``Stage`` has
    made. When somebody goes on from a picture, it tells ``select``, with the picture's parameters,
    and where that leads to Explore ``submit``, to Inside ``input``, with the picture
    (``Drawn.told``).
    """

    def __init__(self, **kwargs: Any) -> None:
        templates = {
            "html_template": text("visit/visit.html"),
            "js_on_load": text("visit/visit.js"),
        }
        super().__init__("", **{**templates, **kwargs})
