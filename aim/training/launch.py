"""What the commands of both stages share: accelerate's processes and tracker, the folder of a run,
sample sheets, the exit code.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from aim.errors import AimError, InvalidInput
from aim.files import replace, sweep
from aim.images.read import open_image
from aim.settings import Settings
from aim.training.identity import Identity, locked, read_state
from aim.training.keep import Models, Write
from aim.training.loop import Hooks, Trainer
from aim.training.parallel import Processes
from aim.training.recipe import RUN
from aim.training.run import Run

CONFIG, NAME = "config.json", "id"

Network = TypeVar("Network", bound=nn.Module)


class Options(NamedTuple):
    """How a command runs, whatever it trains."""

    device: str = "auto"  # cpu or cuda
    tracker: str = "tensorboard"  # none, or another that accelerate knows
    draw: Callable[..., None] | None = None  # a sheet, at every validation
    on_step: Callable[[Run], None] | None = None


def same(model: nn.Module) -> nn.Module:
    """The model itself."""
    return model


class Launch:
    """One command's processes, and the folder ``out`` that the first of them writes, and no other
    command inside ``with``. InvalidInput for a device or tracker that cannot be had.
    """

    def __init__(self, options: Options, out: Path) -> None:
        self.options, self.out = options, out
        self.accelerator = _accelerator(options, out)
        self.processes = Processes(self.accelerator)
        if self.processes.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every shape comes thousands of times

    def __enter__(self) -> Launch:
        self._lock = locked(self.out) if self.processes.first else contextlib.nullcontext()
        self._lock.__enter__()
        if self.processes.first:
            sweep(self.out)
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def describe(self, config: Mapping[str, Any], identity: Identity) -> None:
        """Write config.json, which may be given as ``--config``, and start the tracker.
        InvalidInput for a folder that holds another run, before anything in it is touched.
        """
        identity.changes((read_state(self.out, mmap=True) or {}).get("run"), self.out)
        name, settings = _run_name(self.out), {**config, **identity.settings}
        if self.processes.first:
            about = {NAME: name, **identity.about}
            replace(self.out / CONFIG, json.dumps({**settings, RUN: about}, indent=1) + "\n")
        if self.options.tracker != "none":
            kind = self.options.tracker
            # the same run goes on where a tracker knows of runs
            own = {"id": name, "name": self.out.name, "resume": "allow"} if kind == "wandb" else {}
            plain = {key: value for key, value in settings.items() if _scalar(value)}
            self.accelerator.init_trackers("aim", config=plain, init_kwargs={kind: own})

    def hooks(self, *things: Any, whole: Callable[[nn.Module], nn.Module | None] = same) -> Hooks:
        """For a trainer: its figures go to the tracker, and ``draw`` gets the averaged model,
        ``things`` and a file in sheets/, which goes there, too; without things nothing is drawn.
        ``whole`` makes a model that is shared out one that the first process can draw with.
        """
        draw = self.options.draw if things else None

        def log(step: int, figures: Mapping[str, Any]) -> None:
            self.accelerator.log(dict(figures), step=step)

        def sheet(average: nn.Module, step: int) -> None:
            model = whole(average) if draw else None
            if not (draw and model and self.processes.first):
                return
            path = self.out / "sheets" / f"{step:07d}.png"
            draw(model.to(self.processes.device), *things, path)
            for tracker in self.accelerator.trackers:
                if hasattr(tracker, "log_images") and path.is_file():
                    pixels = np.asarray(open_image(path))[None]
                    layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                    tracker.log_images({"sheet": pixels}, step=step, **layout)

        return Hooks(log, sheet, self.options.on_step)

    def train(self, trainer: Trainer[Any], name: str, write: Write) -> int:
        """Train, with the averaged model written to ``name`` in the folder by ``write``. The exit
        code: 0 when it is trained, 128 and the number of the signal that stopped it, when the same
        command goes on.
        """
        models = Models(self.out / name, write, trainer.recipe, self.processes)
        trainer.models = models
        trainer.run()
        self.accelerator.wait_for_everyone()
        code = trainer.run_state.exit_code()
        if not code:
            version = models.latest(trainer.run_state.step)
            if self.processes.first:
                print(f"{self.out / name} {version}", flush=True)
        self.accelerator.end_training()
        return code


def _accelerator(options: Options, out: Path) -> Any:
    device, tracker, world = options.device, options.tracker, Settings.from_env().world
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"device is {device!r}; it must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device is 'cuda', but PyTorch finds no CUDA device; take auto or cpu")
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise AimError('training needs accelerate: pip install "aim-mamba[train]"') from error
    try:
        trackers = None if tracker == "none" else tracker
        # accelerate makes several processes one model on CPUs only where it is told that they are
        cpu = device == "cpu" or (world > 1 and not torch.cuda.is_available())
        found = Accelerator(cpu=cpu, log_with=trackers, project_dir=str(out))
    except ValueError as error:
        raise InvalidInput(
            f"tracker is {tracker!r}, which accelerate refuses ({error}); take tensorboard or none"
        ) from error
    if trackers and not found.log_with:  # accelerate passes over what is not installed
        raise AimError(f"tracker is {tracker!r}, which is not installed: {_install(tracker)}")
    if found.num_processes != world:
        raise AimError(
            f"accelerate sees {found.num_processes} of {world} processes, which would train as "
            "many models; start with torchrun or accelerate launch, with --device cpu on CPUs"
        )
    return found


def _install(tracker: str) -> str:
    what = '"aim-mamba[train]"' if tracker == "tensorboard" else tracker
    return f"pip install {what}, or take --tracker none"


def _run_name(out: Path) -> str:
    """8 hex digits that a run has from its first start on."""
    try:
        known = json.loads((out / CONFIG).read_text(encoding="utf-8"))[RUN][NAME]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    return known if isinstance(known, str) else secrets.token_hex(4)


def _scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))
