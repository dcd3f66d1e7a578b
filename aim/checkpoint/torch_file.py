"""PyTorch files of others: tensors and plain values, of which no code is run."""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.checkpoint.shards import bare, opened, refuse_pointer
from aim.errors import CheckpointError

SUFFIXES = (".pt", ".pth")
NESTED = ("model", "module", "state_dict")  # in the order in which the official sampler looks
AVERAGE = "ema"  # of the weights of a training run, beside them

log = logging.getLogger("aim")
_allowing = threading.Lock()  # what may be unpickled is a setting of the process


@dataclass(frozen=True)
class Told:
    """What a file of LlamaGen's may not say of itself, and who loads it does."""

    image_size: int | None = None  # pixels each way
    heads: int | None = None  # of attention
    weights: str | None = None  # which, where there are several: model, ema, ...

    @property
    def given(self) -> str:
        """What is told, in words."""
        return ", ".join(name for name, value in vars(self).items() if value is not None)


NOTHING = Told()


def read_file(path: Path) -> Any:
    """What ``path`` holds, a PyTorch file or a safetensors file: tensors, still in the file where
    it allows that, and plain values. CheckpointError where it cannot be read as such.
    """
    if path.suffix in SUFFIXES:
        return _unpickle(path)
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict


def _unpickle(path: Path) -> Any:
    refuse_pointer(path)
    try:
        # the trainer stores its settings as one
        with _allowing, torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    # of a damaged file: from a dozen classes, with advice that would not be safe to follow
    except Exception as error:
        found = (
            re.search(r"GLOBAL ([\w.]+)", str(error))
            if isinstance(error, pickle.UnpicklingError)
            else None
        )
        if found:
            raise CheckpointError(
                f"{path} holds {found[1]}, which was not run; only tensors, plain values and "
                "argparse.Namespace are read"
            ) from error
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint; it may be cut short or of another "
            "format"
        ) from error


def tensors_of(path: Path, stored: Any, asked: str | None = None) -> dict[str, Tensor]:
    """The tensors by bare names in what ``path`` held: those that are ``asked`` for where it holds
    several tables of them, else what the official sampler takes, with a line in the log.
    """
    if isinstance(stored, Mapping):
        stored = _table(path, stored, asked)
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"{path} holds no table of tensors, but {type(stored).__name__}")
    others = sorted(
        str(name)
        for name, value in stored.items()
        if not isinstance(name, str) or not isinstance(value, Tensor)
    )
    if others:
        raise CheckpointError(
            f"{path} holds values among its tensors that are none: {', '.join(others[:5])}"
        )
    return {name: stored[at] for name, at in bare(path, stored).items()}


def _table(path: Path, stored: Mapping[Any, Any], asked: str | None) -> Any:
    there = [name for name in (*NESTED, AVERAGE) if name in stored]
    if asked is not None:
        if asked not in there:
            known = ", ".join(there) or "one table of tensors, without a name"
            raise CheckpointError(f"{path} holds no weights called {asked!r}; it has {known}")
        return stored[asked]
    if AVERAGE in there[1:]:
        log.warning(
            "%s holds %s; %s is read, as its authors' sampler does: `aim export --weights %s` "
            "takes the average", path, " and ".join(there), there[0], AVERAGE,
        )  # fmt: skip
    return stored[there[0]] if there else stored
