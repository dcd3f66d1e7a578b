"""The training loop of both stages: what a step shares, when figures are logged, when the average
is validated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from aim.errors import AimError, InvalidInput
from aim.training.data.images import Batches
from aim.training.identity import Identity
from aim.training.keep import Models
from aim.training.optim import averaged, schedule, set_lr
from aim.training.pace import Means, left
from aim.training.parallel import Processes, whole
from aim.training.recipe import Recipe
from aim.training.run import Run, Stateful

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network, device: torch.device) -> Network:
    """The network on ``device``, in the memory format that convolutions on a GPU want."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class Hooks(NamedTuple):
    """Who hears of a run."""

    log: Callable[[int, dict[str, Any]], None] | None = None  # step, figures; the first process's
    validated: Callable[[Any, int], None] | None = None  # the averaged model, step
    step: Callable[[Run], None] | None = None


QUIET = Hooks()


class Trainer(ABC, Generic[Network]):
    """One stage's training. ``run`` trains until the budget is spent, or a signal, and returns the
    averaged model.

    Every step draws from a seed of its own, so a run that was killed and resumed ends as one that
    was not. Each of several ``processes`` computes its share of a batch. A stage wraps the model as
    it needs, makes its optimisers and calls ``_begin``; then it gives ``_step`` and ``validate``.
    """

    optimizers: tuple[torch.optim.Optimizer, ...]  # the model's, then others
    figure: str  # of ``validate``, by which a model is better
    higher: bool  # is better
    models: Models | None = None  # written while it trains

    def __init__(self, model: Network, recipe: Recipe, processes: Processes) -> None:
        self.recipe, self.processes, self.device = recipe, processes, processes.device
        self.model: Network = channels_last(model, self.device).train()
        self.ema = averaged(self.model, recipe.ema)
        self.generator = torch.Generator()
        self._failed = 0  # steps in a row whose gradient was not finite
        self._skipped = 0  # steps since the last line that were not worth it

    @property
    def average(self) -> Network:
        """The model whose weights are the running average, in eval mode."""
        return self.ema.module  # type: ignore[return-value]

    def _begin(
        self,
        folder: Path,
        items: int,
        parts: Mapping[str, Stateful],
        hooks: Hooks,
        identity: Identity | None,
    ) -> None:
        """Go on with what is in ``folder``, or start there, on ``items`` images."""
        r = self.recipe
        self.hooks, self.items = hooks, items
        self.run_state = Run(
            folder,
            parts,
            seconds=r.seconds or math.inf,
            steps=r.limit(items),
            save_every=r.save_every,
            processes=self.processes,
            on_log=hooks.log,
            identity=identity,
        )

    def _batches(self, items: int, batch: int, seed: int) -> Batches:
        """Shuffled batches over ``items``, from the step on at which the run goes on."""
        batches = Batches(items, batch, seed)
        batches.step = self.run_state.step
        return batches

    @abstractmethod
    def _step(self, progress: float) -> dict[str, Tensor]:
        """One update on this process's share of a batch; its figures."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures of the averaged model on validation images."""

    def run(self) -> Network:
        """Train; logs figures every ``log_every`` steps, and those of ``validate`` every
        ``validate_every`` and at the end.
        """
        run, r, models = self.run_state, self.recipe, self.models
        if models:
            run.on_save = models.latest
        going, means = run.progress < 1, Means()
        if going and r.compile and self.processes.first:
            print("compiling: the first steps may take minutes", flush=True)
        with run.interruptible():
            while going:
                means.add(self._step(run.progress))
                going = run.advance()
                if self.hooks.step:
                    self.hooks.step(run)
                if models:
                    models.passed(run.step)
                due = not run.stopped and (not going or run.step % r.validate_every == 0)
                if going and not due and run.step % r.log_every:
                    continue
                self._log(means, due)
                run.mark()
        return self.average

    def _log(self, means: Means, due: bool) -> None:
        """A line of figures since the last one; ``due``: and those of a validation."""
        run, r, pace = self.run_state, self.recipe, self.run_state.pace()
        eta = left(run.seconds, run.elapsed, run.steps, run.step, pace)
        figures = means.take(self.processes)
        skipped, self._skipped = self._skipped, 0
        validated = self.validate() if due else {}
        run.log(
            **({} if eta is None else {"eta": round(eta)}),
            **figures,
            epochs=run.step * r.batch / self.items,
            lr=self.optimizers[0].param_groups[0]["lr"],
            **self._speed(pace * r.batch),
            **_memory(self.device),
            **({"skipped": skipped} if skipped else {}),
            **validated,
        )
        if self.models and validated:
            self.models.validated(run.step, self.figure, validated[self.figure], self.higher)
        if due and self.hooks.validated:
            self.hooks.validated(self.average, run.step)

    def _speed(self, images_per_second: float) -> dict[str, float]:
        """How fast it goes, where that is known."""
        return {"images_per_second": round(images_per_second, 1)} if images_per_second else {}

    def _prepare(self, progress: float) -> None:
        """Learning rates and seeds of the step that begins; dropout's differs between processes."""
        r, rank = self.recipe, self.processes.rank
        for optimizer in self.optimizers:
            set_lr(optimizer, schedule(r.schedule, progress, r.warmup, r.floor))
        seed = r.seed * 1_000_003 + self.run_state.step
        self.generator.manual_seed(seed)
        torch.manual_seed(seed * 1_009 + rank)

    def _update(self) -> tuple[Tensor, bool]:
        """Follow the gradients of the model where they are finite: their norm, and whether they
        were. AimError after ``patience`` steps in a row that were not worth it.
        """
        r, run = self.recipe, self.run_state
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), r.clip))
        finite = math.isfinite(norm.item())
        self._failed = 0 if finite else self._failed + 1
        self._skipped += not finite
        if self._failed >= r.patience:
            raise AimError(
                f"the gradient's norm is {norm.item()} for {self._failed} steps in a row, up to "
                f"step {run.step}; go on from {run.folder / 'state.pt'} with a lower lr than {r.lr}"
            )
        if finite:
            self.optimizers[0].step()
            self.ema.update_parameters(self.model)
        self.optimizers[0].zero_grad(set_to_none=True)
        return norm, finite


def _memory(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {"memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)}


def check_batch(batch: int, world: int, accumulate: int = 1) -> None:
    """InvalidInput for a batch that does not fall into equal parts."""
    if accumulate < 1 or batch % (world * accumulate):
        raise InvalidInput(
            f"batch is {batch}; it must be a multiple of {world} processes times accumulate = "
            f"{accumulate}"
        )
