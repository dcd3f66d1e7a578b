"""What a run is: what it learns from and begins with, and its settings; so that a folder goes on as
the run that it holds, or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from aim.config import PriorConfig, VQConfig
from aim.errors import CheckpointError, InvalidInput
from aim.training.recipe import Recipe

STATE, LOCK = "state.pt", ".lock"
# settings that shape what is saved, or the order of the images: they stay for the whole run
FIXED = {
    "seed", "batch", "fine_share", "beta1", "beta2", "weight_decay", "discriminator",
    "decoder_only",
}  # fmt: skip


class Identity(NamedTuple):
    """What a run is; plain values."""

    about: Mapping[str, Any]  # what stays: data, classes, tokenizer, the network, what it began as
    settings: Mapping[str, Any]  # of its recipe, most of which may change
    network: Mapping[str, Any] | None = None  # to make a model of a state: see ``keep.record``

    @classmethod
    def of(cls, recipe: Recipe, network: PriorConfig | VQConfig, **about: Any) -> Identity:
        """Of a recipe, a network but for its classes and what may change of it, and what is said
        ``about`` the rest.
        """
        config = dataclasses.asdict(network)
        fixed = {
            f"model.{name}": value
            for name, value in config.items()
            if name not in ("sampling", "classes", "class_names") and not name.endswith("_drop")
        }
        parts = ({**about, **fixed}, dataclasses.asdict(recipe))
        return cls(*(json.loads(json.dumps(part)) for part in parts))

    def record(self) -> dict[str, Any]:
        """To be kept with the state of the run."""
        return {
            "about": dict(self.about),
            "settings": dict(self.settings),
            "network": self.network and dict(self.network),
        }

    def changes(self, found: Any, folder: Path) -> list[str]:
        """Which settings are others than in the record ``found``, None if there is none, each with
        both values. InvalidInput for what may not change.
        """
        if found is None:
            return []
        old = {**found["about"], **found["settings"]}
        new = {**self.about, **self.settings}
        apart = [name for name in new if name in old and old[name] != new[name]]
        for name in apart:
            if name in self.about or name in FIXED:
                raise InvalidInput(
                    f"{folder} holds another run: its {name} is {_brief(old[name])}, not "
                    f"{_brief(new[name])}; give another folder with --out, or what it began with"
                )
        return [f"{name} is {new[name]}, it was {old[name]}" for name in apart]


def _brief(value: Any) -> str:
    text = "nothing" if value in (None, "", []) else str(value)
    return text if len(text) <= 60 else f"{text[:40]}..."


def digest(*parts: Tensor | str) -> str:
    """12 hex digits that change with texts and with whole numbers (N, ...), of which the sum of
    every row is taken.
    """
    mixed = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            mixed.update(part.encode())
            continue
        sums = part.reshape(len(part), -1).sum(1, dtype=torch.int64).cpu()
        mixed.update(f"{tuple(part.shape)}".encode() + sums.numpy().tobytes())
    return mixed.hexdigest()[:12]


def read_state(folder: Path, mmap: bool = False, name: str = STATE) -> dict[str, Any] | None:
    """What a run saved in ``folder``, None where there is nothing; with ``mmap`` tensors are read
    when they are used. CheckpointError for a damaged file.
    """
    path = folder / name
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        return {**state, "step": int(state["step"]), "parts": dict(state["parts"])}
    except (
        OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        brief = str(error).partition("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path} is empty, cut short or no state of a run ({brief}); put a copy of it back, or "
            f"delete it and begin anew, perhaps with --init and a model in {folder}"
        ) from error


_HELD: set[IO[str]] = set()  # locks of this process


def _let_go() -> None:
    for file in _HELD:
        file.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):  # a child would hold them, too, and longer
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in ``folder``; the system lets go of it when this one ends,
    however it does. InvalidInput where another one does.
    """
    try:
        import fcntl
    except ImportError:  # on Windows nobody is kept out
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InvalidInput(
                f"process {file.read().strip() or 'of another'} trains in {folder}; wait for it, "
                "or give another folder with --out"
            ) from error
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        _HELD.add(file)
        try:
            yield
        finally:
            _HELD.discard(file)
