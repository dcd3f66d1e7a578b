"""What a handler sends to the page: how far something is, in numbers and words, and files."""

from __future__ import annotations

import errno
import io
import logging
import os
import secrets
from collections.abc import Callable, Generator
from concurrent.futures import wait
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.processing_utils import hash_bytes
from PIL import Image

from aim.errors import AimError, InvalidInput
from aim.pipeline import Pipeline
from aim.ui.models import Models
from aim.ui.stage.drawing import View

Update = dict[Component, Any]
MOST_TOLD = 600  # characters of a message
FULL = (errno.ENOSPC, errno.EDQUOT)
DISK = "This server's disk is full, so that no file can be kept; try again later."
_log = logging.getLogger(__name__)


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


def awaited(
    models: Models,
    name: str,
    tell: Callable[[str, str], Update],
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Update, None, Pipeline | None]:
    """The model, the page's own for an empty name; ``tell`` makes updates of a state and words
    while it loads. None as soon as it is ``stopped``. Raises what ``Models.fetch`` and loading
    raise.
    """
    name = name or models.default
    future = models.fetch(name)
    with models.wanted(name):
        while not future.done():
            if stopped():
                ends = models.stop_loading(name)
                what = f"what came of {name} is kept" if ends else f"{name} goes on loading"
                yield tell("stopped", f"Stopped; {what}")
                return None
            yield tell("loading", models.loading(name))
            wait([future], timeout=0.5)
    return future.result()


def explain(error: Exception) -> str:
    """What went wrong, in words for somebody at the page, on a line; internals stay in the log."""
    if isinstance(error, AimError):
        return " ".join(str(error).split())[:MOST_TOLD]
    if isinstance(error, OSError) and error.errno in FULL:
        return DISK
    return "Something went wrong here; the server's log says what."


def plain(text: str) -> str:
    """``text`` for a toast, which would show HTML in it."""
    return escape(text, quote=False)


def warn(text: str) -> None:
    """A toast."""
    gr.Warning(plain(text))


def verdict(test: Callable[[], object]) -> dict[str, Any]:
    """What a validator says of an input: whether ``test`` accepts it, else its InvalidInput's
    message.
    """
    try:
        test()
    except InvalidInput as error:
        return gr.validate(False, plain(explain(error)))
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
        passes = f"{view.passes} passes, " if 0 < view.passes < view.total - view.kept else ""
        return f"{view.total} / {view.total} codes in {passes}{view.seconds:.1f} s"
    return f"{view.step} / {view.total} codes"


def preview_png(image: Image.Image) -> bytes:
    """A PNG that is written fast."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def keep(data: bytes, name: str, component: Component) -> str | None:
    """Write a file where the page serves files from, and deletes them from after a while; returns
    its path. None, with a line in the log, where the disk is full: what is drawn goes on, and is
    still saved from the page, whose files are made of the codes.
    """
    # as Gradio does it, but whole: two who draw the same picture have one file, and one of them may
    # be reading it
    folder = Path(component.GRADIO_CACHE) / hash_bytes(data)
    path, unfinished = folder / name, folder / f".{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
        return str(path.resolve())
    except OSError as error:
        if error.errno not in FULL:
            raise
        _log.error("the disk is full: %s could not be kept (%s)", name, error)
        with suppress(OSError):
            unfinished.unlink()
        return None
