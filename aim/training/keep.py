"""The averaged model of a run in its folder: written at every save, some kept by a rule; and one
made from any state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aim.checkpoint import save_model, save_tokenizer
from aim.checkpoint.config_json import from_values, to_values
from aim.checkpoint.ours import PRIORS, TOKENIZERS
from aim.checkpoint.weights import read_metadata
from aim.config import PriorConfig, VQConfig
from aim.errors import CheckpointError, InvalidInput
from aim.files import replace
from aim.models.prior import build
from aim.models.vq.model import VQ
from aim.training.identity import STATE, read_state
from aim.training.parallel import Processes
from aim.training.recipe import Recipe

# writes the averaged weights with further metadata, called by every process; the version, in the
# first
Write = Callable[[Path, Mapping[str, str]], str]


class Models:
    """``<name>.safetensors`` of a run, the latest, and those that are kept beside it:
    ``<name>-<step>`` of every ``keep_every`` steps and of the ``keep_last`` saves, and
    ``<name>-best`` by validation with ``keep_best``.
    """

    def __init__(self, path: Path, write: Write, recipe: Recipe, processes: Processes) -> None:
        self.path, self._write, self._recipe, self._processes = path, write, recipe, processes

    def latest(self, step: int) -> str:
        """Write the model of this step in the place of the latest; its version."""
        version = self._write(self.path, {"step": str(step)})
        if self._recipe.keep_last:
            self._write(self._of(step), {"step": str(step)})
            self._prune()
        return version

    def passed(self, step: int) -> None:
        """Keep the model of this step, if it is one of those to be kept for good."""
        if self._recipe.keep_every and step % self._recipe.keep_every == 0:
            self._write(self._of(step), {"step": str(step)})

    def validated(self, step: int, name: str, value: float, higher: bool) -> None:
        """Keep the model of this step, if none before was better by the figure ``name``."""
        if not self._recipe.keep_best:
            return
        best = self.path.with_stem(f"{self.path.stem}-best")
        better = False
        if self._processes.first:  # all must write together, or none
            before = read_metadata(best).get(name) if best.is_file() else None
            apart = value - float(before) if before else 0.0
            better = before is None or (apart > 0 if higher else apart < 0)
        if self._processes.most([float(better)])[0]:
            self._write(best, {"step": str(step), name: f"{value}"})

    def _of(self, step: int) -> Path:
        return self.path.with_stem(f"{self.path.stem}-{step:07d}")

    def _prune(self) -> None:
        if not self._processes.first:
            return
        every, found = self._recipe.keep_every, {}
        for path in self.path.parent.glob(f"{self.path.stem}-*.safetensors"):
            number = re.fullmatch(rf"{re.escape(self.path.stem)}-(\d+)", path.stem)
            if number and not (every and int(number[1]) % every == 0):
                found[int(number[1])] = path
        for step in sorted(found)[: -self._recipe.keep_last]:
            found[step].unlink(missing_ok=True)


def record(config: PriorConfig | VQConfig, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What ``export`` must know of a run's network, plain values."""
    kinds = {**PRIORS, TOKENIZERS[0]: VQConfig}
    kind = next(kind for kind, of in kinds.items() if isinstance(config, of))
    return {"kind": kind, "config": to_values(config), "metadata": dict(metadata)}


def export(run: Path, out: Path, dtype: Any) -> str:
    """Write the averaged model of the state in the folder ``run``, or of a state's file, to
    ``out``, its matrices in ``dtype``; its version. The tokenizer that a prior names is copied to
    its side. InvalidInput where there is no such state, CheckpointError for a damaged one.
    """
    folder = run if run.is_dir() else run.parent
    state = read_state(folder, name=STATE if run.is_dir() else run.name)
    if state is None:
        raise InvalidInput(f"there is no {STATE} in {folder}; give the folder of a run")
    about = (state.get("run") or {}).get("network")
    if not about:
        raise CheckpointError(
            f"{folder} holds the state of an earlier version, which does not say what its network "
            "is; give its command again, which writes the model"
        )
    config = from_values({**PRIORS, TOKENIZERS[0]: VQConfig}[about["kind"]], about["config"], run)
    weights = {
        name.removeprefix("module."): weight
        for name, weight in state["parts"]["average"].items()
        if name.startswith("module.")
    }
    metadata = {**about["metadata"], "step": str(state["step"])}
    if isinstance(config, VQConfig):
        network = VQ(config)
        network.load_state_dict(weights)
        return save_tokenizer(out, network, metadata, dtype)
    model = build(config)
    model.load_state_dict(weights)
    beside = metadata.get("tokenizer", "")
    if beside and not (out.parent / beside).exists() and (folder / beside).is_file():
        replace(out.parent / beside, (folder / beside).read_bytes())
    return save_model(out, model, metadata, dtype)
