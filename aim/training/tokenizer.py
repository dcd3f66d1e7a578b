"""Stage 1: train the VQ tokenizer (losses of VQGAN and LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput
from aim.images.write import to_bytes
from aim.models.vq.model import VQ, ResBlock
from aim.training.classifier import VGG
from aim.training.data.images import Ahead, Batches, ImageSet, crops, normalize
from aim.training.loop import Guard, Run, Stateful, channels_last
from aim.training.losses import PatchDiscriminator, adaptive_weight, hinge_loss, perceptual_distance
from aim.training.optim import EMA, adamw, schedule, set_lr
from aim.training.parallel import ALONE, Processes
from aim.training.recipe import step_limit


@dataclass(frozen=True)
class TokenizerRecipe:
    """Settings of stage 1. The run ends with whichever of ``seconds``, ``steps`` and ``epochs`` is
    reached first; 0 is no limit.

    The weights of the losses are relative to a mean squared error in [-1, 1].
    """

    seconds: float = 400
    steps: int = 0
    epochs: float = 0
    batch: int = 256  # images a step, over all processes
    lr: float = 6e-4  # half of it for the discriminator
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03  # of the run
    floor: float = 0.02  # of lr, at the end
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    min_scale: float = 0.75  # side of the smallest crop, in images
    perceptual: float = 1.0
    adversarial: float = 0.3
    adversarial_start: float = 0.35  # progress at which the discriminator comes in
    codebook: float = 1.0
    commitment: float = 0.25
    ema: float = 0.999
    revive_every: int = 200  # steps between replacements of unused codes, until half of the run
    decoder_only: bool = False  # encoder and codebook stay, so that codes mean what they meant
    # of training for the network of the perceptual loss, where none is given
    loss_network_seconds: float = 60
    log_every: int = 200  # steps
    validate_every: int = 1000  # steps, a multiple of log_every
    save_every: float = 60  # seconds
    patience: int = 10  # steps in a row whose gradient is not finite, after which the run gives up
    compile: bool = False
    seed: int = 0

    def limit(self, items: int) -> int:
        """Steps that ``steps`` and ``epochs`` allow over ``items`` images."""
        return step_limit(self.steps, self.epochs, self.batch, items)


class Pixels(Protocol):
    """A set of training images: ``ImageSet`` or ``StreamedImages``."""

    def __len__(self) -> int: ...

    def pixels(self, pick: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 of the numbers ``pick`` (B,)."""


class CodeUse:
    """Counts which codes are used, and replaces those that are not by features of the day."""

    def __init__(self, size: int, device: torch.device, processes: Processes = ALONE) -> None:
        self.counts = torch.zeros(size, device=device)
        self._processes = processes

    def add(self, codes: Tensor) -> None:
        """Count codes (B, T), and those of the other processes."""
        self.counts += self._processes.total(
            torch.bincount(codes.flatten(), minlength=len(self.counts))
        )

    def used(self) -> Tensor:
        """The fraction of codes seen since the last ``revive``."""
        return (self.counts > 0).float().mean()

    @torch.no_grad()
    def revive(self, table: Tensor, features: Tensor) -> None:
        """Overwrite unused rows of ``table`` (V, d) in place by features (B, d, h, w) of this
        batch, and start a new count.

        Every process gets what the first one took of its share of the batch.
        """
        dead = (self.counts == 0).nonzero().squeeze(1)
        pool = features.permute(0, 2, 3, 1).flatten(0, 2)
        pick = torch.randint(len(pool), (len(dead),), device=pool.device)
        table[dead] = pool[pick].to(table.dtype) * table.norm(dim=1).median()
        self._processes.from_first(table)
        self.counts.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """For a training checkpoint: a count cut short would take rare codes for unused ones."""
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a training checkpoint."""
        self.counts.copy_(state["counts"])


def _compile_blocks(model: torch.nn.Module) -> None:
    torch._dynamo.config.cache_size_limit = 64
    for module in model.modules():
        if isinstance(module, ResBlock):
            module.compile(dynamic=False)


class TokenizerTrainer:
    """Stage 1. ``run`` trains until the budget is spent, or SIGTERM, and returns the averaged
    model.

    Every step draws from a seed of its own, so a run that was killed and resumed ends as one that
    was not. Each of several ``processes`` computes its share of a batch. ``after_validation`` is
    called with the averaged model and the step, ``on_step`` after every step, on every process.
    """

    def __init__(
        self,
        model: VQ,
        loss_network: VGG,
        data: Pixels,
        val: ImageSet,
        recipe: TokenizerRecipe,
        folder: Path,
        processes: Processes | None = None,
        on_log: Callable[[int, dict[str, Any]], None] | None = None,
        after_validation: Callable[[VQ, int], None] | None = None,
        on_step: Callable[[Run], None] | None = None,
    ) -> None:
        self.processes = processes or ALONE
        self.device = device = processes.device if processes else val.images.device
        if recipe.batch % self.processes.world:
            raise InvalidInput(
                f"batch is {recipe.batch}; it must be a multiple of the {self.processes.world} "
                "processes"
            )
        self.recipe, self.data, self.val = recipe, data, val
        self.after_validation, self.on_step = after_validation, on_step
        self.model = channels_last(model.to(device)).train()
        self.loss_network = loss_network.to(device).eval().requires_grad_(False)
        torch.manual_seed(recipe.seed)  # the discriminators of all processes are one
        self.discriminator = channels_last(PatchDiscriminator().to(device))
        if recipe.decoder_only:
            self.model.requires_grad_(False)
            for part in (self.model.post_quant_conv, self.model.decoder):
                part.requires_grad_(True)
        self.optimizer = adamw(
            self.model, recipe.lr, recipe.weight_decay, (recipe.beta1, recipe.beta2)
        )
        self.d_optimizer = adamw(self.discriminator, recipe.lr / 2, recipe.weight_decay, (0.5, 0.9))
        self.ema = EMA(self.model, recipe.ema)
        self.use = CodeUse(model.config.codebook_size, device, self.processes)
        parts: dict[str, Stateful] = {
            "model": self.model,
            "discriminator": self.discriminator,
            "ema": self.ema,
            "use": self.use,
        }
        parts |= {"optimizer": self.optimizer, "d_optimizer": self.d_optimizer}
        self.run_state = Run(
            folder,
            parts,
            seconds=recipe.seconds or math.inf,
            steps=recipe.limit(len(data)),
            save_every=recipe.save_every,
            processes=self.processes,
            on_log=on_log,
        )
        batches = Batches(len(data), recipe.batch, recipe.seed)
        batches.step = self.run_state.step
        self.batches = Ahead(
            batches, lambda pick: data.pixels(pick[self.processes.rank :: self.processes.world])
        )
        self.generator = torch.Generator()
        self.guard = Guard(recipe.patience)
        if recipe.compile:
            _compile_blocks(self.model)

    def run(self) -> VQ:
        """Train; prints figures every ``log_every`` steps, with the validation PSNR every
        ``validate_every`` and at the end.
        """
        run, r = self.run_state, self.recipe
        going, before = run.progress < 1, (run.step, run.elapsed)
        with run.interruptible():
            while going:
                losses = self._step(run.progress)
                going = run.advance()
                if self.on_step:
                    self.on_step(run)
                if run.step % r.log_every and going:
                    continue
                due = not run.stopped and (run.step % r.validate_every == 0 or not going)
                figures = {"psnr": self.validate()} if due else {}
                rate = (run.step - before[0]) * r.batch / max(run.elapsed - before[1], 1e-9)
                means = {name: self.processes.mean(value) for name, value in losses.items()}
                run.log(
                    **means,
                    epochs=run.step * r.batch / len(self.data),
                    images_per_second=round(rate, 1),
                    **figures,
                )
                if due and self.after_validation:
                    self.after_validation(self.ema.model, run.step)
                before = (run.step, run.elapsed)
        return self.ema.model

    def validate(self) -> float:
        """PSNR in dB of the averaged model on about 1,000 validation images, of every class if they
        are in order.
        """
        sample = self.val.images[:: max(1, len(self.val) // 1000)].to(self.device)
        return psnr(reconstruct(self.ema.model, sample), sample)

    def _step(self, progress: float) -> dict[str, Tensor]:
        """One update of tokenizer and discriminator on this process's share of a batch; its
        figures.
        """
        r, device, step = self.recipe, self.device, self.run_state.step
        factor = schedule(r.schedule, progress, r.warmup, r.floor)
        for optimizer, lr in ((self.optimizer, r.lr), (self.d_optimizer, r.lr / 2)):
            set_lr(optimizer, lr * factor)
        self.generator.manual_seed(r.seed * 1_000_003 + step)
        torch.manual_seed(r.seed * 1_000_003 + step)  # of new codes
        draw = torch.rand(4, r.batch, generator=self.generator)[
            :, self.processes.rank :: self.processes.world
        ]
        images = crops(
            next(self.batches).to(device, non_blocking=True), r.min_scale, draw.to(device)
        )
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.set_grad_enabled(not r.decoder_only):
                features = self.model.features(images)
                quantized = self.model.quantize_features(features)
            made = self.model.decode_vectors(quantized.vectors)
            mse = F.mse_loss(made, images)
            perceptual = perceptual_distance(self.loss_network, made, images)
            task = mse + r.perceptual * perceptual
            # gradients meet at the image, so that each network is passed once
            towards = torch.autograd.grad(task, made)[0]
            adversarial_on = progress >= r.adversarial_start
            if adversarial_on:
                self.discriminator.requires_grad_(False)
                fooling = torch.autograd.grad(-self.discriminator(made).mean(), made)[0]
                weight = adaptive_weight(
                    made, towards, fooling, self.model.last_weight, self.processes
                )
                towards = towards + r.adversarial * weight * fooling
            of_codes = (
                r.codebook * quantized.codebook_loss + r.commitment * quantized.commitment_loss
            )
        if r.decoder_only:
            made.backward(towards)
        else:
            torch.autograd.backward([made, of_codes], [towards, None])
        self.processes.average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), r.clip)
        good = self.guard.takes(norm, step, r.lr, self.run_state.folder)
        if good:
            self.optimizer.step()
            self.ema.update()
        self.optimizer.zero_grad(set_to_none=True)
        out = {
            "mse": mse,
            "perceptual": perceptual,
            "commitment": quantized.commitment_loss,
            "norm": norm,
        }
        if adversarial_on and good:
            out["discriminator"] = self._discriminator_step(images, made.detach())
            out["weight"] = weight
        self.use.add(quantized.codes)
        out["used"] = self.use.used()
        early = step in (10, 30, 60, 100)  # a random codebook starts far from the features
        if (
            not r.decoder_only
            and progress < 0.5
            and (early or (step and step % r.revive_every == 0))
        ):
            self.use.revive(self.model.quantize.embedding.weight, features.detach())
        return out

    def _discriminator_step(self, images: Tensor, made: Tensor) -> Tensor:
        self.discriminator.requires_grad_(True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            loss = hinge_loss(self.discriminator(images), self.discriminator(made))
        loss.backward()
        self.processes.average_gradients(self.discriminator)
        self.d_optimizer.step()
        self.d_optimizer.zero_grad(set_to_none=True)
        return loss.detach()


@torch.no_grad()
def reconstruct(model: VQ, images: Tensor, batch: int = 250) -> Tensor:
    """uint8 images (N, 3, S, S) -> what the tokenizer keeps of them, uint8 of the same shape."""
    parts = [model.decode(model.encode(normalize(part))) for part in images.split(batch)]
    return to_bytes(torch.cat(parts))


def psnr(made: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images ``made`` to ``images`` (N, 3, S, S),
    averaged over images.
    """
    error = (made.float() - images.float()).square().mean((1, 2, 3))
    return (20 * torch.log10(255 / error.sqrt().clamp(min=1e-3))).mean().item()
