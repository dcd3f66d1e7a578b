"""Stage 2: train a prior, AiM or the Transformer, on codes (arXiv 2408.12245, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.models.aim import AiM
from aim.models.prior import Prior
from aim.training.codes import CodeSet
from aim.training.data import Batches
from aim.training.loop import Run
from aim.training.optim import EMA, adamw, cosine, set_lr


@dataclass(frozen=True)
class PriorRecipe:
    """Settings of stage 2."""

    seconds: float = 540
    batch: int = 256
    lr: float = 1.2e-3
    weight_decay: float = 0.05
    warmup: float = 0.03  # of the run
    class_drop: float = 0.1  # labels replaced by "no class", for guidance
    plain_share: float = 0.4  # of the samples that are not cropped
    clip: float = 1.0
    ema: float = 0.9995
    validate_every: float = 45  # seconds, up to the next line of the log
    compile: bool = False
    scan: str = "auto"  # of AiM: auto, torch or mamba-ssm, see AiM.use_scan
    seed: int = 0


class PriorTrainer:
    """Stage 2 on one device. ``run`` trains until the budget is spent and returns the averaged model."""

    def __init__(self, model: Prior, data: CodeSet, val: CodeSet, recipe: PriorRecipe, folder: Path) -> None:
        self.recipe, self.data, self.val = recipe, data, val
        self.device = data.codes.device
        self.model = model.to(self.device).train()
        if isinstance(model, AiM):
            model.use_scan(recipe.scan)
        self.optimizer = adamw(self.model, recipe.lr, recipe.weight_decay)
        self.ema = EMA(self.model, recipe.ema)
        self.run_state = Run(folder, {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}, seconds=recipe.seconds)
        self.batches = Batches(len(data.labels), recipe.batch, recipe.seed)
        self.batches.step = self.run_state.step
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed + self.run_state.step)
        if recipe.compile:
            for layer in self.model.layers:
                layer.compile(dynamic=False)

    def run(self) -> Prior:
        """Train; prints the loss every 200 steps, and the validation loss where ``validate_every`` has passed and at the end."""
        run = self.run_state
        going, validated = run.progress < 1, run.elapsed
        while going:
            loss, norm = self._step(run.progress)
            going = run.advance()
            if run.step % 200 == 0 or not going:
                due = not going or run.elapsed - validated >= self.recipe.validate_every
                figures = {"val": self.validate()} if due else {}
                validated = run.elapsed if due else validated
                epochs = run.step * self.recipe.batch / len(self.data.labels)
                run.log(loss=loss, norm=norm, epochs=epochs, lr=self.optimizer.param_groups[0]["lr"], **figures)
        return self.ema.model

    def validate(self) -> float:
        """Mean negative log likelihood of a code of the validation images, in nats, by the averaged model."""
        return validation_nll(self.ema.model, self.val, self.recipe.batch)

    def _step(self, progress: float) -> tuple[Tensor, Tensor]:
        r = self.recipe
        set_lr(self.optimizer, r.lr * cosine(progress, r.warmup, 0.01))
        codes, labels = self._batch(next(self.batches).to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(codes[:, :-1], labels)
        loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), r.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        return loss.detach(), norm

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, T) in a random version and labels (B,), some of them dropped."""
        r, versions = self.recipe, len(self.data.codes)
        draw = torch.rand(3, len(pick), device=self.device, generator=self.generator)
        plain = (draw[0] < r.plain_share) | (versions <= 2)
        choice = torch.where(plain, draw[1] * min(2, versions), 2 + draw[1] * (versions - 2)).long()
        choice = choice.clamp(max=versions - 1)  # the sum may round up
        labels = self.data.labels[pick].masked_fill(draw[2] < r.class_drop, self.model.config.num_classes)
        return self.data.codes[choice, pick].long(), labels


@torch.no_grad()
def validation_nll(model: Prior, val: CodeSet, batch: int = 256) -> float:
    """Mean negative log likelihood of a code of version 0, in nats."""
    device, total = val.codes.device, 0.0
    for codes, labels in zip(val.codes[0].split(batch), val.labels.split(batch), strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(codes[:, :-1].long(), labels)
        total += F.cross_entropy(logits.flatten(0, 1), codes.flatten().long(), reduction="sum").item()
    return total / val.codes[0].numel()
