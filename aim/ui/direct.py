"""What goes into a call and comes out of it, taken as it is where that is all there is to do.

Gradio hands each value to a thread and back, and an update of a drawing has eight: with a crowd
that was a third of all that the process does, and each time a wait for the engine's thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.blocks import convert_component_dict_to_list
from gradio.data_classes import GradioModel, GradioRootModel
from gradio.route_utils import API_PREFIX
from gradio.state_holder import SessionState
from gradio.utils import is_prop_update
from gradio_client.utils import (  # type: ignore[import-untyped]
    encode_file_path,
    is_file_obj_with_meta,
    traverse,
)

from aim.ui.picker.picker import Picker
from aim.ui.stage.widgets import Choice, Pick, Range, Whole

GIVEN = (Choice, Pick, Picker, Range, Whole, gr.Checkbox)  # that hand on a plain value as it comes
PLAIN = (str, int, float, bool, type(None))
FILES = (gr.Image, gr.DownloadButton)  # that show a file, given by its path
MADE = (gr.HTML, gr.JSON)  # that show a value


def taken(block_fn: Any, inputs: Sequence[Any]) -> list[Any] | None:
    """What a function is called with for ``inputs`` as they came; None where a component has more
    to do with one than to hand it on.
    """
    if block_fn.component_prop_inputs or len(inputs) != len(block_fn.inputs):
        return None
    for block, value in zip(block_fn.inputs, inputs, strict=True):
        if not isinstance(block, GIVEN) or not isinstance(value, PLAIN):
            return None
    return [block.preprocess(value) for block, value in zip(block_fn.inputs, inputs, strict=True)]


def sent(
    block_fn: Any, predictions: Any, state: SessionState | None, place: str
) -> list[Any] | None:
    """What the browser gets of what a function gave; None where there is more to do. ``place``,
    with a separator at its end, is where files are that the page serves.
    """
    outputs = block_fn.outputs
    if not isinstance(predictions, dict) or not predictions or block_fn.batch:
        return None
    values: Any = convert_component_dict_to_list(list(outputs), predictions)
    if not isinstance(values, list):  # the function has one output, which is a dictionary
        return None
    answer = []
    for block, value in zip(outputs, values, strict=True):
        if is_prop_update(value):
            if "value" in value or (len(value) > 1 and type(block) is not gr.Button):
                return None
        elif isinstance(block, FILES):
            if value is not None:
                if not isinstance(value, str) or not value.startswith(place):
                    return None
                value = _file(value, os.path.basename(value))
        elif isinstance(block, MADE):
            made: Any = block.postprocess(value)
            if isinstance(made, GradioModel | GradioRootModel):
                made = made.model_dump()
            try:
                value = traverse(made, partial(_kept, place=place), is_file_obj_with_meta)
            except LookupError:
                return None
        else:
            return None
        answer.append(value)
    if state is not None:  # what is on a screen is kept
        for block, value in zip(outputs, answer, strict=True):
            if isinstance(block, FILES + MADE) and not is_prop_update(value):
                state._update_value_in_config(block._id, value)
    return answer


def _kept(file: dict[str, Any], place: str) -> dict[str, Any]:
    """As of ``_file``; LookupError for one that is elsewhere."""
    if not file["path"].startswith(place):
        raise LookupError(file["path"])
    return _file(file["path"])


def _file(path: str, name: str | None = None) -> dict[str, Any]:
    """A file that the page serves, as the browser gets it."""
    return {
        "path": path,
        "url": f"{API_PREFIX}/file={encode_file_path(path)}",
        "size": None,
        "orig_name": name,
        "mime_type": None,
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }
