"""Stage 1: train the VQ tokenizer (losses of VQGAN and LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.images.write import to_bytes
from aim.models.vq.blocks import ResBlock
from aim.models.vq.model import VQ
from aim.training.classifier import VGG
from aim.training.data.images import Ahead, ImageSet, crops, normalize
from aim.training.loop import QUIET, Hooks, Trainer, channels_last, check_batch
from aim.training.losses import PatchDiscriminator, adaptive_weight, hinge_loss, perceptual_distance
from aim.training.optim import adamw
from aim.training.parallel import ALONE, Processes
from aim.training.recipe import TokenizerRecipe
from aim.training.run import Stateful


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


class TokenizerTrainer(Trainer[VQ]):
    """Stage 1: see ``Trainer``."""

    recipe: TokenizerRecipe

    def __init__(
        self,
        model: VQ,
        loss_network: VGG,
        data: Pixels,
        val: ImageSet,
        recipe: TokenizerRecipe,
        folder: Path,
        processes: Processes | None = None,
        hooks: Hooks = QUIET,
    ) -> None:
        processes = processes or Processes(device=val.images.device)
        check_batch(recipe.batch, processes.world)
        super().__init__(model, recipe, processes)
        self.data, self.val = data, val
        self.loss_network = loss_network.to(self.device).eval().requires_grad_(False)
        torch.manual_seed(recipe.seed)  # the discriminators of all processes are one
        self.discriminator = channels_last(PatchDiscriminator(), self.device)
        if recipe.decoder_only:
            self.model.requires_grad_(False)
            for part in (self.model.post_quant_conv, self.model.decoder):
                part.requires_grad_(True)
        betas = (recipe.beta1, recipe.beta2)
        self.optimizers = (
            adamw(self.model, recipe.rate, recipe.weight_decay, betas),
            adamw(self.discriminator, recipe.rate / 2, recipe.weight_decay, (0.5, 0.9)),
        )
        self.use = CodeUse(model.config.codebook_size, self.device, self.processes)
        parts: dict[str, Stateful] = {
            "model": self.model,
            "discriminator": self.discriminator,
            "average": self.ema,
            "use": self.use,
            "optimizer": self.optimizers[0],
            "d_optimizer": self.optimizers[1],
        }
        self._begin(folder, len(data), parts, hooks)
        self.batches = Ahead(self.picks, lambda pick: data.pixels(self.processes.share(pick)))
        if recipe.compile:
            _compile_blocks(self.model)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Of the averaged model on about 1,000 validation images, of every class if they are in
        order: PSNR in dB, the share of codes that are used, their perplexity.
        """
        images = self.val.images[:: max(1, len(self.val) // 1000)].to(self.device)
        codes = torch.cat([self.average.encode(normalize(part)) for part in images.split(250)])
        share = torch.bincount(codes.flatten(), minlength=len(self.use.counts)) / codes.numel()
        return {
            "psnr": psnr(reconstruct(self.average, images), images),
            "val_used": (share > 0).float().mean().item(),
            "perplexity": torch.special.entr(share).sum().exp().item(),
        }

    def _step(self, progress: float) -> dict[str, Tensor]:
        """One update of tokenizer and discriminator on this process's share of a batch; its
        figures.
        """
        r, device, step = self.recipe, self.device, self.run_state.step
        self._prepare(progress)
        draw = self.processes.share(torch.rand(4, r.batch, generator=self.generator).T).T
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
        norm, good = self._update()
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
        self.optimizers[1].step()
        self.optimizers[1].zero_grad(set_to_none=True)
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
