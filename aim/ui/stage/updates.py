"""What a handler sends to the page: how far something is, in numbers and words, and files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.processing_utils import save_bytes_to_cache
from PIL import Image

from aim.errors import AimError, InvalidInput
from aim.ui.stage.drawing import View

Update = dict[Component, Any]


def status(state: str, text: str, view: View | None = None) -> dict[str, Any]:
    """The value of a ``Status``: state, text, step, total, place, seconds, codes_per_second."""
    view = view or View(state, 0, 0)
    numbers = {"step": view.step, "total": view.total, "place": view.place}
    return {
        "state": state,
        "text": text,
        **numbers,
        "seconds": round(view.seconds, 3),
        "codes_per_second": round(view.rate, 1),
    }


def explain(error: Exception) -> str:
    """What went wrong, in words for somebody at the page; internals stay in the log."""
    return (
        str(error)
        if isinstance(error, AimError)
        else "Something went wrong here; the server's log says what."
    )


def verdict(test: Callable[[], object]) -> dict[str, Any]:
    """What a validator says of an input: whether ``test`` accepts it, else its InvalidInput's
    message.
    """
    try:
        test()
    except InvalidInput as error:
        return gr.validate(False, str(error))
    return gr.validate(True, "")


def describe_view(view: View) -> str:
    """Where a drawing is, in words."""
    if view.state == "waiting":
        return f"Number {view.place} in line"
    if view.note:
        return view.note
    if view.state == "stopped":
        return f"Stopped at {view.step} / {view.total} codes"
    if view.state == "done":
        return f"{view.total} / {view.total} codes in {view.seconds:.1f} s"
    return f"{view.step} / {view.total} codes"


def preview_png(image: Image.Image) -> bytes:
    """A PNG that is written fast."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def keep(data: bytes, name: str, component: Component) -> str:
    """Write a file where the page serves files from, and deletes them from after a while; returns
    its path.
    """
    return save_bytes_to_cache(data, name, component.GRADIO_CACHE)
