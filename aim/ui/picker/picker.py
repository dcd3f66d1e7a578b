"""A class is picked by typing: its name, a synonym, its number, or a kind of thing that it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aim.classes import imagenet
from aim.kinds import kinds, synsets
from aim.ui.assets import text


class Picker(gr.HTML):
    """A combobox of classes, of which ``choices`` holds (title, index); the value is an index.

    Through the API any name or index is taken, and checked where it is used. ``info`` stands under
    the label.
    """

    def __init__(
        self,
        choices: Sequence[tuple[str, int]] = (),
        value: int | None = None,
        *,
        label: str = "Class",
        info: str = "Type a name or a kind: goldfish, dog, fruit.",
        **kwargs: Any,
    ) -> None:
        templates = {
            "html_template": text("picker/picker.html"),
            "js_on_load": text("picker/match.js") + text("picker/picker.js"),
            "elem_classes": "aim-flush",
        }
        self.choices = choices
        super().__init__(value, choices=choices, label=label, info=info, **{**templates, **kwargs})

    def preprocess(self, payload: Any) -> Any:
        """Unchecked."""
        return payload

    def postprocess(self, value: Any) -> Any:
        """As it is."""
        return value

    def api_info(self) -> dict[str, Any]:
        """Any string or index."""
        return {"anyOf": [{"type": "string"}, {"type": "integer"}]}

    def example_payload(self) -> Any:
        """For the API's description."""
        return "goldfish"

    def example_value(self) -> Any:
        """For the API's description."""
        return "goldfish"


@lru_cache(maxsize=1)
def catalogue() -> bytes:
    """What else ImageNet's classes are called, as JSON: ``kinds``, the names of each, and
    ``classes``, by title the other names and the numbers of their kinds, the nearest first.
    """
    number: dict[str, int] = {}
    classes = {
        entry.title: [
            [name for name in entry.synonyms if name != entry.name],
            [number.setdefault(kind, len(number)) for kind in kinds(entry.wnid)],
        ]
        for entry in imagenet()
    }
    found = {"kinds": [synsets()[kind].names for kind in number], "classes": classes}
    return json.dumps(found, separators=(",", ":")).encode()


def _catalogue(request: Request) -> Response:
    headers = {"cache-control": "public, max-age=86400"}
    return Response(catalogue(), media_type="application/json", headers=headers)


ROUTES = [Route("/catalogue.json", _catalogue)]
"""What a ``Picker`` asks for when somebody begins to pick."""
