"""Pictures of classes, which draw their class when they are clicked."""

from __future__ import annotations

from typing import Any

from aim.ui.assets import text
from aim.ui.stage.widgets import Shown


class Chips(Shown):
    """A row of pictures. The value is a list of dictionaries: ``index`` of a class, its ``name``,
    and the address of an ``image``. A click tells the index.
    """

    def __init__(self, value: list[dict[str, Any]], **kwargs: Any) -> None:
        templates = {
            "html_template": text("settings/chips.html"),
            "js_on_load": text("settings/chips.js"),
        }
        super().__init__(value, visible=bool(value), **{**templates, **kwargs})
