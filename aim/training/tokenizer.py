"""Stage 1: train the VQ tokenizer (losses of VQGAN and LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.media import to_bytes
from aim.models.vq import VQ, ResBlock
from aim.training.classifier import VGG
from aim.training.data import Batches, ImageSet, normalize, random_crops
from aim.training.loop import Run, Stateful, channels_last
from aim.training.losses import PatchDiscriminator, adaptive_weight, hinge_loss, perceptual_distance
from aim.training.optim import EMA, adamw, cosine, set_lr


@dataclass(frozen=True)
class TokenizerRecipe:
    """Settings of stage 1. The weights are relative to a mean squared error in [-1, 1]."""

    seconds: float = 400
    batch: int = 256
    lr: float = 6e-4
    weight_decay: float = 0.01
    min_scale: float = 0.75
    perceptual: float = 1.0
    adversarial: float = 0.3
    adversarial_start: float = 0.35  # progress at which the discriminator comes in
    commitment: float = 0.25
    ema: float = 0.999
    revive_every: int = 200  # steps between replacements of unused codes, until half of the run
    decoder_only: bool = False  # encoder and codebook stay, so that codes mean what they meant
    compile: bool = False
    seed: int = 0


class CodeUse:
    """Counts which codes are used, and replaces those that are not by features of the day."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.counts = torch.zeros(size, device=device)

    def add(self, codes: Tensor) -> None:
        """Count codes (B, T)."""
        self.counts += torch.bincount(codes.flatten(), minlength=len(self.counts))

    def used(self) -> Tensor:
        """The fraction of codes seen since the last ``revive``."""
        return (self.counts > 0).float().mean()

    @torch.no_grad()
    def revive(self, table: Tensor, features: Tensor) -> None:
        """Overwrite unused rows of ``table`` (V, d) in place by features (B, d, h, w) of this batch, and start a new count."""
        dead = (self.counts == 0).nonzero().squeeze(1)
        pool = features.permute(0, 2, 3, 1).flatten(0, 2)
        pick = torch.randint(len(pool), (len(dead),), device=pool.device)
        table[dead] = pool[pick].to(table.dtype) * table.norm(dim=1).median()
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
    """Stage 1 on one device. ``run`` trains until the budget is spent and returns the averaged model."""

    def __init__(self, model: VQ, loss_network: VGG, data: ImageSet, val: ImageSet, recipe: TokenizerRecipe, folder: Path) -> None:
        device = data.images.device
        self.recipe, self.data, self.val = recipe, data, val
        self.model = channels_last(model.to(device)).train()
        self.loss_network = loss_network.to(device).eval().requires_grad_(False)
        self.discriminator = channels_last(PatchDiscriminator().to(device))
        if recipe.decoder_only:
            self.model.requires_grad_(False)
            for part in (self.model.post_quant_conv, self.model.decoder):
                part.requires_grad_(True)
        self.optimizer = adamw(self.model, recipe.lr, recipe.weight_decay)
        self.d_optimizer = adamw(self.discriminator, recipe.lr / 2, recipe.weight_decay, (0.5, 0.9))
        self.ema = EMA(self.model, recipe.ema)
        self.use = CodeUse(model.config.codebook_size, device)
        parts: dict[str, Stateful] = {"model": self.model, "discriminator": self.discriminator, "ema": self.ema, "use": self.use}
        parts |= {"optimizer": self.optimizer, "d_optimizer": self.d_optimizer}
        self.run_state = Run(folder, parts, seconds=recipe.seconds)
        self.batches = Batches(len(data), recipe.batch, recipe.seed)
        self.batches.step = self.run_state.step
        self.generator = torch.Generator(device).manual_seed(recipe.seed + self.run_state.step)
        if recipe.compile:
            _compile_blocks(self.model)

    def run(self) -> VQ:
        """Train; prints figures every 200 steps and the validation PSNR every 1,000."""
        run = self.run_state
        sample = self.val.images[:: max(1, len(self.val) // 1000)]  # of every class: they are in order
        going = run.progress < 1
        while going:
            losses = self._step(run.progress)
            going = run.advance()
            if run.step % 200 == 0 or not going:
                figures = {"psnr": psnr(reconstruct(self.ema.model, sample), sample)} if run.step % 1000 == 0 or not going else {}
                run.log(**losses, **figures)
        return self.ema.model

    def _step(self, progress: float) -> dict[str, Tensor]:
        r, device = self.recipe, self.data.images.device
        for optimizer, lr in ((self.optimizer, r.lr), (self.d_optimizer, r.lr / 2)):
            set_lr(optimizer, lr * cosine(progress, 0.03, 0.02))
        pick = next(self.batches).to(device)
        images = random_crops(self.data.images[pick], r.min_scale, self.generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.set_grad_enabled(not r.decoder_only):
                features = self.model.features(images)
                quantized = self.model.quantize_features(features)
            made = self.model.decode_vectors(quantized.vectors)
            mse = F.mse_loss(made, images)
            perceptual = perceptual_distance(self.loss_network, made, images)
            task = mse + r.perceptual * perceptual
            towards = torch.autograd.grad(task, made)[0]  # gradients meet at the image, so that each network is passed once
            adversarial_on = progress >= r.adversarial_start
            if adversarial_on:
                self.discriminator.requires_grad_(False)
                fooling = torch.autograd.grad(-self.discriminator(made).mean(), made)[0]
                weight = adaptive_weight(made, towards, fooling, self.model.last_weight)
                towards = towards + r.adversarial * weight * fooling
            of_codes = quantized.codebook_loss + r.commitment * quantized.commitment_loss
        if r.decoder_only:
            made.backward(towards)
        else:
            torch.autograd.backward([made, of_codes], [towards, None])
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        out = {"mse": mse, "perceptual": perceptual, "commitment": quantized.commitment_loss, "norm": norm}
        if adversarial_on:
            out["discriminator"] = self._discriminator_step(images, made.detach())
            out["weight"] = weight
        self.use.add(quantized.codes)
        step = self.run_state.step
        out["used"] = self.use.used()
        early = step in (10, 30, 60, 100)  # a random codebook starts far from the features
        if not r.decoder_only and progress < 0.5 and (early or (step and step % r.revive_every == 0)):
            self.use.revive(self.model.quantize.embedding.weight, features.detach())
        return out

    def _discriminator_step(self, images: Tensor, made: Tensor) -> Tensor:
        self.discriminator.requires_grad_(True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            loss = hinge_loss(self.discriminator(images), self.discriminator(made))
        loss.backward()
        self.d_optimizer.step()
        self.d_optimizer.zero_grad(set_to_none=True)
        return loss.detach()


@torch.no_grad()
def reconstruct(model: VQ, images: Tensor, batch: int = 250) -> Tensor:
    """uint8 images (N, 3, S, S) -> what the tokenizer keeps of them, uint8 of the same shape."""
    parts = [model.decode(model.encode(normalize(part))) for part in images.split(batch)]
    return to_bytes(torch.cat(parts))


def psnr(made: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images ``made`` to ``images`` (N, 3, S, S), averaged over images."""
    error = (made.float() - images.float()).square().mean((1, 2, 3))
    return (20 * torch.log10(255 / error.sqrt().clamp(min=1e-3))).mean().item()
