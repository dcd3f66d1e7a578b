"""Files that somebody gave: decoded one at a time, as each may take some hundred megabytes, and
never called by where this server keeps them.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from aim.images import read
from aim.pipeline import Pipeline

_NAME = "the file"
_one = threading.Lock()


def encoded(pipe: Pipeline, path: str) -> np.ndarray:
    """The codes (num_tokens,) of a picture as of ``Pipeline.encode``; InvalidInput for what cannot
    be read as one.
    """
    with _one:
        picture = read.open_square(path, pipe.tokenizer.config.image_size, _NAME)
    return pipe.encode(picture)


def parameters(path: str) -> dict[str, Any]:
    """The parameters in a PNG of ours; InvalidInput if there are none."""
    with _one:
        return read.read_parameters(path, _NAME)
