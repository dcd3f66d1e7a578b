"""Stage 2: train a prior, AiM or the Transformer, on codes (arXiv 2408.12245, section 4)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aim.config import PriorConfig
from aim.errors import InvalidInput
from aim.models.aim.model import AiM
from aim.models.prior import Prior
from aim.training.data.codes import CodeSet
from aim.training.identity import Identity
from aim.training.loop import QUIET, Hooks, Trainer, check_batch
from aim.training.optim import adamw
from aim.training.pace import product_parameters, utilization
from aim.training.parallel import ALONE, Processes, Sharded, shard, synchronised
from aim.training.recipe import PriorRecipe
from aim.training.run import Stateful


class PriorTrainer(Trainer[Prior]):
    """Stage 2: see ``Trainer``. With ``fsdp`` the weights are shared out among the processes."""

    recipe: PriorRecipe
    figure, higher = "val", False

    def __init__(
        self,
        model: Prior,
        data: CodeSet,
        val: CodeSet,
        recipe: PriorRecipe,
        folder: Path,
        processes: Processes | None = None,
        fsdp: bool = False,
        hooks: Hooks = QUIET,
        identity: Identity | None = None,
    ) -> None:
        processes = processes or Processes(device=data.codes.device)
        check_batch(recipe.batch, processes.world, recipe.accumulate)
        for name, codes in (("training", data), ("validation", val)):
            check_codes(model.config, name, codes)
        super().__init__(model, recipe, processes)
        self.data, self.val = data, val
        self._products = product_parameters(self.model)
        self.generator = torch.Generator(data.codes.device)
        if isinstance(model, AiM):
            model.use_scan(recipe.scan)
        if fsdp:
            shard(self.model)
            shard(self.average)
        for layer in self.model.layers:
            if recipe.checkpoint_layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
            if recipe.compile:
                layer.compile(dynamic=False)
        betas = (recipe.beta1, recipe.beta2)
        optimizer = adamw(self.model, recipe.rate, recipe.weight_decay, betas)
        self.optimizers = (optimizer,)
        parts: dict[str, Stateful] = {
            "model": Sharded(self.model) if fsdp else self.model,
            "average": Sharded(self.ema) if fsdp else self.ema,
            "optimizer": Sharded(self.model, optimizer) if fsdp else optimizer,
        }
        self._begin(folder, len(data.labels), parts, hooks, identity)
        self.picks = self._batches(len(data.labels), recipe.batch, recipe.seed)
        self.wrapped: nn.Module = self.model
        if self.processes.world > 1 and not fsdp:
            on = [self.device.index] if self.device.type == "cuda" else None
            self.wrapped = nn.parallel.DistributedDataParallel(
                self.model, device_ids=on, gradient_as_bucket_view=True
            )

    def validate(self) -> dict[str, float]:
        """Mean negative log likelihood of a code of the validation images, in nats, by the averaged
        model.
        """
        return {
            "val": validation_nll(
                self.average, self.val, self.recipe.batch, self.device, self.processes
            )
        }

    def _speed(self, images_per_second: float) -> dict[str, float]:
        share = utilization(
            self._products, self.model.config.num_tokens, images_per_second, self.device,
            self.processes.world,
        )  # fmt: skip
        used = {"mfu": round(share, 4)} if share else {}
        return {**super()._speed(images_per_second), **used}

    def _step(self, progress: float) -> dict[str, Tensor]:
        """One update: the mean loss of this process's share, and the norm of the gradient over
        all.
        """
        r = self.recipe
        self._prepare(progress)
        codes, labels = self._batch(next(self.picks).to(self.data.codes.device))
        parts = [
            self.processes.share(t).to(self.device, non_blocking=True).chunk(r.accumulate)
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
        norm, _ = self._update()
        return {"loss": total, "norm": norm}

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


def check_codes(c: PriorConfig, name: str, codes: CodeSet) -> None:
    """InvalidInput for codes, called ``name``, that a model of this size cannot learn."""
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


@torch.no_grad()
def validation_nll(
    model: Prior,
    val: CodeSet,
    batch: int = 256,
    device: torch.device | None = None,
    processes: Processes = ALONE,
) -> float:
    """Mean negative log likelihood of a code of version 0, in nats; the processes share the
    batches.
    """
    device = device or val.codes.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    batches = list(zip(val.codes[0].split(batch), val.labels.split(batch), strict=True))
    for start in range(0, len(batches), processes.world):
        at = start + processes.rank
        # weights that are shared out need all processes in every pass, some of them in vain
        codes, labels = (part.to(device) for part in batches[min(at, len(batches) - 1)])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(codes[:, :-1].long(), labels)
        if at < len(batches):
            total += F.cross_entropy(logits.flatten(0, 1), codes.flatten().long(), reduction="sum")
    return processes.total(total).item() / val.codes[0].numel()
