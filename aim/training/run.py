"""A run in a folder: a budget by clock or by steps, state to resume from, a log."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aim.errors import AimError, CheckpointError, InvalidInput
from aim.files import replacing
from aim.training.identity import STATE, Identity, read_state
from aim.training.parallel import ALONE, Processes

# that end a run after the step under way, saved; the last is Slurm's warning, where it is known
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class Stateful(Protocol):
    """Anything with a state to save: models, optimisers, averages."""

    def state_dict(self) -> dict[str, Any]:
        """What to save."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take back what was saved."""


class Run:
    """A run in a folder: ``state.pt`` to resume from, ``log.jsonl`` of what was printed.

    It ends after ``seconds`` of training, resumed time included, or after ``steps``, whichever
    comes first. With several processes each has one, all call it alike, and the first one writes.
    ``on_log`` gets the step and every line of figures.
    """

    def __init__(
        self,
        folder: Path,
        parts: Mapping[str, Stateful],
        *,
        seconds: float,
        steps: int = 10**9,
        save_every: float = 60,
        processes: Processes = ALONE,
        on_log: Callable[[int, dict[str, Any]], None] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.folder, self.parts, self.processes, self.on_log = folder, parts, processes, on_log
        self.seconds, self.steps, self.save_every = seconds, steps, save_every
        self.step = 0
        self.stopped = 0  # the signal that did
        self.on_save: Callable[[int], object] | None = None  # hears of a save before the last
        self._identity = identity
        self._asked_to_stop = 0  # by a signal
        self._before = 0.0  # seconds of earlier runs
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._start = self._saved = time.monotonic()
        self._mark = self._warm = (self.step, self._start)  # from where on the pace is measured
        self._late = 0.0  # by how much the slowest process is behind this one
        self._warming = 3  # steps off the clock: compilation is not training

    @property
    def elapsed(self) -> float:
        """Seconds trained, earlier runs included."""
        return self._before + time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, max((self.elapsed + self._late) / self.seconds, self.step / self.steps))

    def advance(self) -> bool:
        """Count a step; True while there is more to do. Saves now and then, and before it stops for
        a signal.
        """
        self.step += 1
        if self._warming:
            self._warming -= 1
            self._start = time.monotonic()
            self._warm = (self.step, self._start)
        done, due = self.progress >= 1, time.monotonic() - self._saved > self.save_every
        if self.processes.world > 1:
            mine = self.elapsed
            agreed = self.processes.most([mine, float(done), float(due), self._asked_to_stop])
            self._late, done, due, self._asked_to_stop = (
                agreed[0] - mine,
                bool(agreed[1]),
                bool(agreed[2]),
                int(agreed[3]),
            )
        self.stopped = 0 if done else self._asked_to_stop
        if done or due or self.stopped:
            self.save()
            if self.on_save and not done:
                self.on_save(self.step)
                self._saved = time.monotonic()
        return not (done or self.stopped)

    def mark(self) -> None:
        """Measure the pace from here on."""
        self._mark = (self.step, time.monotonic())

    def pace(self) -> float:
        """Steps a second since the last ``mark``, or since the steps that are off the clock; 0
        where all were.
        """
        step, start = max(self._mark, self._warm)
        if self._warming or step == self.step:
            return 0.0
        steps, seconds = self.step - step, time.monotonic() - start
        return steps / seconds if seconds > 0 else 0.0

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, SIGINT (Ctrl-C), SIGTERM and SIGUSR1 end the run after the step that is under
        way, saved; a second SIGINT at once. Only the main thread can arrange that.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: Any) -> None:
            if number == signal.SIGINT == self._asked_to_stop:
                raise KeyboardInterrupt
            self._asked_to_stop = number

        previous = {number: signal.signal(number, ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def exit_code(self) -> int:
        """0, or what a shell sees of a process that the signal ended, 143 after SIGTERM, when the
        first process also says how to go on.
        """
        if self.stopped and self.processes.first:
            print(
                f"stopped at step {self.step}, saved in {self.folder}; the same command goes on "
                "from there",
                file=sys.stderr,
            )
        return 128 + self.stopped if self.stopped else 0

    def save(self) -> None:
        """Write ``state.pt``, whole or not at all; the pace is without it."""
        start = time.monotonic()
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "parts": {k: part.state_dict() for k, part in self.parts.items()},
            "run": self._identity.record() if self._identity else None,
        }
        if self.processes.first:
            with replacing(self.folder / STATE) as unfinished, unfinished.open("wb") as file:
                torch.save(state, file)
        self._saved = time.monotonic()
        self._mark, self._warm = (
            (step, at + self._saved - start) for step, at in (self._mark, self._warm)
        )

    def _resume(self) -> None:
        path, state = self.folder / STATE, read_state(self.folder)
        if state is None:
            return
        changed = self._identity.changes(state.get("run"), self.folder) if self._identity else []
        if state["parts"].keys() != self.parts.keys():
            raise CheckpointError(
                f"{path} holds {sorted(state['parts'])}, not {sorted(self.parts)}; use another "
                "folder"
            )
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state["parts"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"{path} is of another model or recipe ({error}); use another folder"
                ) from error
        self.step, self._before = state["step"], state["elapsed"]
        if changed:
            self._say(f"goes on at step {self.step} with other settings: {'; '.join(changed)}")
            self._append({"step": self.step, "changed": changed})

    def _say(self, text: str) -> None:
        if self.processes.first:
            print(text, flush=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.processes.first:
            path = self.folder / "log.jsonl"
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise InvalidInput(
                    f"cannot write {path}: {error.strerror}; make room, and the same command goes "
                    f"on from the last save"
                ) from error

    def log(self, **values: Any) -> None:
        """Print one line of figures and append it to ``log.jsonl``. AimError if one is not finite:
        nothing good would follow.
        """
        plain = {k: round(v.item(), 5) if isinstance(v, Tensor) else v for k, v in values.items()}
        broken = [k for k, v in plain.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken:
            raise AimError(
                f"{broken[0]} is {plain[broken[0]]} at step {self.step}; resume from "
                f"{self.folder / 'state.pt'} with a lower lr"
            )
        line = {"step": self.step, "seconds": round(self.elapsed, 1), **plain}
        shown = dict(line)
        if self.steps < 10**9:
            shown["step"] = f"{self.step}/{self.steps}"
        if "eta" in shown:
            shown["eta"] = timedelta(seconds=shown["eta"])
        self._say(
            " ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
            )
        )
        self._append(line)
        if self.on_log and self.processes.first:
            self.on_log(self.step, plain)
