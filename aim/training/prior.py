"""Stage 2: train a prior, AiM or the Transformer, on codes (arXiv 2408.12245, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aim.errors import InvalidInput
from aim.models.aim.model import AiM
from aim.models.prior import Prior
from aim.training.data.codes import CodeSet
from aim.training.data.images import Batches
from aim.training.loop import Guard, Run, Stateful
from aim.training.optim import EMA, adamw, schedule, set_lr
from aim.training.parallel import ALONE, Processes, Sharded, shard, synchronised, whole
from aim.training.recipe import PriorRecipe

__all__ = ["PriorRecipe", "PriorTrainer", "validation_nll"]


class PriorTrainer:
    """Stage 2. ``run`` trains until the budget is spent, or SIGTERM, and returns the averaged
    model.

    Every step draws from a seed of its own, so a run that was killed and resumed ends as one that
    was not. Each of several ``processes`` computes its share of a batch; with ``fsdp`` the weights
    are shared out too. ``after_validation`` is called with the averaged model and the step,
    ``on_step`` after every step, on every process.
    """

    def __init__(
        self,
        model: Prior,
        data: CodeSet,
        val: CodeSet,
        recipe: PriorRecipe,
        folder: Path,
        processes: Processes | None = None,
        fsdp: bool = False,
        on_log: Callable[[int, dict[str, Any]], None] | None = None,
        after_validation: Callable[[Prior, int], None] | None = None,
        on_step: Callable[[Run], None] | None = None,
    ) -> None:
        self.recipe, self.data, self.val = recipe, data, val
        self.processes = processes or ALONE
        self.device = processes.device if processes else data.codes.device
        self.after_validation, self.on_step = after_validation, on_step
        check(model, recipe, data, val, self.processes.world)
        self.model = model.to(self.device).train()
        if isinstance(model, AiM):
            model.use_scan(recipe.scan)
        self.ema = EMA(self.model, recipe.ema)
        if fsdp:
            shard(self.model)
            shard(self.ema.model)
            self.ema.follow(self.model)
        for layer in self.model.layers:
            if recipe.checkpoint_layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
            if recipe.compile:
                layer.compile(dynamic=False)
        self.optimizer = adamw(
            self.model, recipe.rate, recipe.weight_decay, (recipe.beta1, recipe.beta2)
        )
        self.run_state = Run(
            folder,
            self._parts(fsdp),
            seconds=recipe.seconds or math.inf,
            steps=recipe.limit(len(data.labels)),
            save_every=recipe.save_every,
            processes=self.processes,
            on_log=on_log,
        )
        self.batches = Batches(len(data.labels), recipe.batch, recipe.seed)
        self.batches.step = self.run_state.step
        self.generator = torch.Generator(data.codes.device)
        self.wrapped: nn.Module = self.model
        if self.processes.world > 1 and not fsdp:
            on = [self.device.index] if self.device.type == "cuda" else None
            self.wrapped = nn.parallel.DistributedDataParallel(
                self.model, device_ids=on, gradient_as_bucket_view=True
            )
        self.guard = Guard(recipe.patience)

    def _parts(self, fsdp: bool) -> dict[str, Stateful]:
        if not fsdp:
            return {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        average = Sharded(self.ema.model)
        return {
            "model": Sharded(self.model),
            "ema": _Counted(average, self.ema),
            "optimizer": Sharded(self.model, self.optimizer),
        }

    def run(self) -> Prior:
        """Train; prints figures every ``log_every`` steps, with the validation loss where
        ``validate_every`` has passed and at the end.
        """
        run, r = self.run_state, self.recipe
        going, validated, before = run.progress < 1, run.elapsed, (run.step, run.elapsed)
        with run.interruptible():
            while going:
                loss, norm = self._step(run.progress)
                going = run.advance()
                if self.on_step:
                    self.on_step(run)
                if run.step % r.log_every and going:
                    continue
                waited = self.processes.most([run.elapsed - validated])[0]
                due = not run.stopped and (not going or waited >= r.validate_every)
                figures = {"val": self.validate()} if due else {}
                epochs = run.step * r.batch / len(self.data.labels)
                rate = (run.step - before[0]) * r.batch / max(run.elapsed - before[1], 1e-9)
                lr = self.optimizer.param_groups[0]["lr"]
                mean = self.processes.mean(loss)
                run.log(
                    loss=mean,
                    norm=norm,
                    epochs=epochs,
                    lr=lr,
                    images_per_second=round(rate, 1),
                    **figures,
                )
                if due:
                    validated = run.elapsed
                    if self.after_validation:
                        self.after_validation(self.ema.model, run.step)
                before = (run.step, run.elapsed)
        return self.ema.model

    def validate(self) -> float:
        """Mean negative log likelihood of a code of the validation images, in nats, by the averaged
        model.
        """
        return validation_nll(self.ema.model, self.val, self.recipe.batch, self.device)

    def _step(self, progress: float) -> tuple[Tensor, Tensor]:
        """One update: the mean loss of this process's share, and the norm of the gradient over
        all.
        """
        r, rank, world = self.recipe, self.processes.rank, self.processes.world
        set_lr(self.optimizer, r.rate * schedule(r.schedule, progress, r.warmup, r.floor))
        step = self.run_state.step
        self.generator.manual_seed(r.seed * 1_000_003 + step)
        torch.manual_seed((r.seed * 1_000_003 + step) * 1_009 + rank)  # of dropout
        codes, labels = self._batch(next(self.batches).to(self.data.codes.device))
        parts = [
            t[rank::world].to(self.device, non_blocking=True).chunk(r.accumulate)
            for t in (codes, labels)
        ]
        total = torch.zeros((), device=self.device)
        for i, (some, rows) in enumerate(zip(*parts, strict=True)):
            with synchronised(self.wrapped, last=i == r.accumulate - 1):
                with torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"
                ):
                    logits = self.wrapped(some[:, :-1], rows)
                loss = F.cross_entropy(logits.flatten(0, 1), some.flatten()) / r.accumulate
                loss.backward()
            total += loss.detach()
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), r.clip))
        if self.guard.takes(norm, step, r.lr, self.run_state.folder):
            self.optimizer.step()
            self.ema.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, T) in a random version and labels (B,), some of them dropped."""
        r, versions = self.recipe, len(self.data.codes)
        draw = torch.rand(3, len(pick), device=pick.device, generator=self.generator)
        plain = (draw[0] < r.plain_share) | (versions <= 2)
        choice = torch.where(plain, draw[1] * min(2, versions), 2 + draw[1] * (versions - 2)).long()
        choice = choice.clamp(max=versions - 1)  # the sum may round up
        labels = self.data.labels[pick].masked_fill(
            draw[2] < r.class_drop, self.model.config.num_classes
        )
        return self.data.codes[choice, pick].long(), labels


class _Counted:
    """A sharded average with its count, in the form of ``EMA.state_dict``."""

    def __init__(self, model: Sharded, ema: EMA[Any]) -> None:
        self._model, self._ema = model, ema

    def state_dict(self) -> dict[str, Any]:
        return {"model": self._model.state_dict(), "updates": self._ema.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self._ema.updates = state["updates"]


def check(model: Prior, recipe: PriorRecipe, data: CodeSet, val: CodeSet, world: int = 1) -> None:
    """InvalidInput, before the first step, for codes or a batch that do not suit the model."""
    c = model.config
    for name, codes in (("training", data), ("validation", val)):
        if codes.codes.shape[2] != c.num_tokens:
            raise InvalidInput(
                f"the {name} codes are {codes.codes.shape[2]} an image; the model draws "
                f"{c.num_tokens}: tokenize again"
            )
        low, high = codes.codes.min().item(), codes.codes.max().item()
        if low < 0 or high >= c.vocab_size:
            raise InvalidInput(
                f"the {name} codes reach from {low} to {high}; the model's codebook has "
                f"{c.vocab_size}: take its tokenizer"
            )
        if codes.codebook_size not in (0, c.vocab_size):
            raise InvalidInput(
                f"the {name} codes are of a codebook of {codes.codebook_size}; the model's has "
                f"{c.vocab_size}"
            )
        if codes.labels.min() < 0 or codes.labels.max() >= c.num_classes:
            raise InvalidInput(
                f"the {name} labels reach {codes.labels.max().item()}; the model has "
                f"{c.num_classes} classes"
            )
        if c.class_names and codes.names and tuple(codes.names) != c.class_names:
            raise InvalidInput(
                f"the {name} codes have other classes, {codes.names[0]!r} and on, than the model, "
                f"{c.class_names[0]!r} and on"
            )
        if c.classes and tuple(codes.classes) != tuple(c.classes):
            raise InvalidInput(
                f"the {name} codes are of {len(codes.classes)} other classes than the model's "
                f"{c.num_classes}"
            )
    if recipe.accumulate < 1 or recipe.batch % (world * recipe.accumulate):
        raise InvalidInput(
            f"batch is {recipe.batch}; it must be a multiple of {world} processes times accumulate "
            f"= {recipe.accumulate}"
        )


@torch.no_grad()
def validation_nll(
    model: Prior, val: CodeSet, batch: int = 256, device: torch.device | None = None
) -> float:
    """Mean negative log likelihood of a code of version 0, in nats."""
    device, total = device or val.codes.device, 0.0
    for codes, labels in zip(val.codes[0].split(batch), val.labels.split(batch), strict=True):
        codes, labels = codes.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(codes[:, :-1].long(), labels)
        total += F.cross_entropy(
            logits.flatten(0, 1), codes.flatten().long(), reduction="sum"
        ).item()
    return total / val.codes[0].numel()
