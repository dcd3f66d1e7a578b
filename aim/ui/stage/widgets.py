"""The page's own components. Inputs hand on what they are given, so that one place checks it and
can say what is allowed.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from aim.config import SAMPLING, SamplingParams
from aim.parameters import Parameter
from aim.ui.assets import text


class Choice(gr.Dropdown):
    """A dropdown whose value need not be among its choices when it comes through the API."""

    is_template = True  # drawn as what it derives from

    def preprocess(self, payload: Any) -> Any:
        """Unchecked."""
        return payload

    def api_info(self) -> dict[str, Any]:
        """A string where it begins with one, so that examples of calls quote it; else any string or
        index.
        """
        if isinstance(self.value, str):
            return {"type": "string"}
        return {"anyOf": [{"type": "string"}, {"type": "integer"}]}


class Pick(gr.Radio):
    """Buttons of which one is chosen."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchecked."""
        return payload

    def api_info(self) -> dict[str, Any]:
        """One of the choices, which are whole numbers; as an enumeration, examples of calls would
        quote them.
        """
        values = ", ".join(str(value) for _, value in self.choices)
        return {"type": "integer", "description": f"one of {values}"}


class Range(gr.Slider):
    """A slider whose ends are what is useful, not all that is allowed."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchecked."""
        return payload

    def api_info(self) -> dict[str, Any]:
        """A number."""
        return {"type": "number"}


class Given(gr.File):
    """A file that somebody gives."""

    is_template = True

    def example_payload(self) -> Any:
        """For the API's description: a file beside the program."""
        return {"path": "photo.jpg", "url": "photo.jpg", "meta": {"_type": "gradio.FileData"}}


class Whole(gr.Number):
    """A number that is neither rounded nor clipped."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchecked."""
        return payload


class Status(gr.HTML):
    """A bar, a line of text and a rate; the value is a dictionary with ``state``, ``step``,
    ``total``, ``text``, ``codes_per_second``. Its template is filled in by JavaScript: text is
    escaped there, and is never part of the template itself.
    """

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(
            value, **{"html_template": text("stage/status.html"), "js_on_load": None, **kwargs}
        )

    def api_info(self) -> dict[str, Any]:
        """A dictionary."""
        return {"type": "object"}


class Shown(gr.HTML):
    """HTML for people alone: the API has the same in numbers."""

    @property
    def skip_api(self) -> bool:
        """Left out of what the API returns."""
        return True


def drawn(elem_id: str, alt_text: str = "The picture, as far as it is drawn") -> gr.Image:
    """Where a picture is drawn: dots on paper until then."""
    return gr.Image(
        format="png", type="filepath", label="Picture", show_label=False, interactive=False,
        buttons=["fullscreen"], elem_id=elem_id, elem_classes="aim-picture",
        alt_text=alt_text,
    )  # fmt: skip


def sampling_boxes(own: SamplingParams, more: bool = False) -> dict[str, Any]:
    """An input for every sampling parameter, by name, at a model's own values; with ``more`` those
    that seldom matter are shown at once, too.
    """
    first = [p for p in SAMPLING if p.captioned]
    boxes: dict[str, Component] = {p.name: _box(p, getattr(own, p.name)) for p in first}
    with gr.Accordion("More", open=more):
        rest = [p for p in SAMPLING if p not in first]
        boxes |= {p.name: _box(p, getattr(own, p.name)) for p in rest}
    return {p.name: boxes[p.name] for p in SAMPLING}


def _box(p: Parameter, value: Any) -> Component:
    told: dict[str, Any] = {"label": p.title.capitalize(), "info": p.help}
    if p.choices:
        return Choice(list(p.choices), value=value, filterable=False, **told)
    if p.slider:
        least, most, step = p.slider
        return Range(least, most, value, step=step, **told)
    return Whole(value, precision=0, minimum=p.low, **told)


def draw_and_stop(tab: str, draw: str = "Draw") -> tuple[gr.Button, gr.Button]:
    """The buttons of a tab, which has the id ``tab``."""
    start = gr.Button(draw, variant="primary", elem_id=tab, min_width=120)
    return start, gr.Button("Stop", interactive=False, elem_id=f"{tab}-stop", min_width=80)
