"""What every training run shares: a budget by clock or by steps, resumable state, a log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from aim.errors import AimError, CheckpointError

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """The network in the memory format that convolutions on a GPU want."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Stateful(Protocol):
    """Anything with a state to save: models, optimisers, averages."""

    def state_dict(self) -> dict[str, Any]:
        """What to save."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take back what was saved."""


class Run:
    """A run in a folder: ``state.pt`` to resume from, ``log.jsonl`` of what was printed.

    It ends after ``seconds`` of training, resumed time included, or after ``steps``, whichever comes first.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Stateful], *, seconds: float, steps: int = 10**9, save_every: float = 60) -> None:
        self.folder, self.parts = folder, parts
        self.seconds, self.steps, self.save_every = seconds, steps, save_every
        self.step = 0
        self._before = 0.0  # seconds of earlier runs
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._start = self._saved = time.monotonic()
        self._warming = 3  # steps off the clock: compilation is not training

    @property
    def elapsed(self) -> float:
        """Seconds trained, earlier runs included."""
        return self._before + time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, max(self.elapsed / self.seconds, self.step / self.steps))

    def advance(self) -> bool:
        """Count a step; True while there is more to do. Saves now and then."""
        self.step += 1
        if self._warming:
            self._warming -= 1
            self._start = time.monotonic()
        done = self.progress >= 1
        if done or time.monotonic() - self._saved > self.save_every:
            self.save()
        return not done

    def save(self) -> None:
        """Write ``state.pt`` atomically."""
        state = {"step": self.step, "elapsed": self.elapsed, "parts": {k: part.state_dict() for k, part in self.parts.items()}}
        partial = self.folder / "state.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")
        self._saved = time.monotonic()

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["parts"].keys() != self.parts.keys():
            raise CheckpointError(f"{path} holds {sorted(state['parts'])}, not {sorted(self.parts)}; use another folder")
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.step, self._before = state["step"], state["elapsed"]

    def log(self, **values: Any) -> None:
        """Print one line of figures and append it to ``log.jsonl``. AimError if one is not finite: nothing good would follow."""
        plain = {k: round(v.item(), 5) if isinstance(v, Tensor) else v for k, v in values.items()}
        broken = [k for k, v in plain.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken:
            raise AimError(f"{broken[0]} is {plain[broken[0]]} at step {self.step}; resume from {self.folder / 'state.pt'} with a lower lr")
        line = {"step": self.step, "seconds": round(self.elapsed, 1), **plain}
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()), flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
