"""Stage 1: train the VQ tokenizer (losses of VQGAN and LlamaGen, arXiv 2406.06525)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aim.config import VQConfig
from aim.errors import InvalidInput
from aim.models.vq.blocks import AttnBlock, Downsample, ResBlock, Upsample
from aim.models.vq.model import VQ
from aim.training.code_use import CodeUse
from aim.training.data.images import Ahead, ImageSet, crops, normalize
from aim.training.identity import Identity
from aim.training.loop import QUIET, Hooks, Network, Trainer, channels_last, check_batch
from aim.training.losses import (
    LossNetwork,
    PatchDiscriminator,
    adaptive_weight,
    at_images,
    learn_to_tell,
    perceptual_distance,
)
from aim.training.optim import adamw
from aim.training.parallel import Processes
from aim.training.recipe import TokenizerRecipe
from aim.training.reconstruct import in_parts, psnr, reconstruct, reduced
from aim.training.run import Stateful
from aim.training.semantic import Classifier, FeatureDiscriminator, SemanticHead

AGAIN = (ResBlock, AttnBlock, Downsample, Upsample)  # may be computed again


class Pixels(Protocol):
    """A set of training images: ``ImageSet`` or ``StreamedImages``."""

    def __len__(self) -> int: ...

    def pixels(self, pick: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 of the numbers ``pick`` (B,)."""


class Part(NamedTuple):
    """What a part of a batch leaves behind, without gradients."""

    figures: dict[str, Tensor]
    codes: Tensor  # (B, h * w)
    features: Tensor  # (B, codebook_dim, h, w)
    shown: Tensor  # (B, 3, S, S), what the discriminator judges


def _prepare_blocks(model: VQ, recipe: TokenizerRecipe) -> None:
    """Blocks computed again and compiled, as the recipe says; whole networks compile too long."""
    torch._dynamo.config.cache_size_limit = 64
    for module in model.modules():
        block: Any = module
        if recipe.compile and isinstance(module, ResBlock):
            block.forward = torch.compile(block.forward, dynamic=False)
        if recipe.checkpoint_layers and isinstance(module, AGAIN):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _frozen(network: Network, device: torch.device) -> Network:
    """A network that is not trained; on a GPU its convolutions are bfloat16, as autocast, which
    would cast them again at every use, has them.
    """
    for module in network.modules():
        if device.type == "cuda" and isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
    return channels_last(network.requires_grad_(False).eval(), device)


class TokenizerTrainer(Trainer[VQ]):
    """Stage 1: see ``Trainer``. Where more comes out than goes in, ``fine`` are images of the size
    that comes out; those of ``data``, of the size that goes in, are compared with what is made of
    them reduced to it, and the discriminator judges ``fine`` ones alone.
    """

    recipe: TokenizerRecipe
    figure, higher = "psnr", True

    def __init__(
        self,
        model: VQ,
        loss_network: LossNetwork,
        data: Pixels,
        val: ImageSet,
        recipe: TokenizerRecipe,
        folder: Path,
        processes: Processes | None = None,
        hooks: Hooks = QUIET,
        fine: Pixels | None = None,
        identity: Identity | None = None,
    ) -> None:
        processes = processes or Processes(device=val.images.device)
        self.shares = batch_shares(model.config, recipe, processes.world, fine)
        super().__init__(model, recipe, processes)
        self.data, self.val, self.fine = data, val, fine
        self.loss_network = _frozen(loss_network, self.device)
        torch.manual_seed(recipe.seed)  # the discriminators of all processes are one
        semantic = recipe.semantic and not recipe.decoder_only
        self.classifier = None
        if semantic or recipe.discriminator == "features":
            self.classifier = _frozen(Classifier(), self.device)
        self.head = SemanticHead(model.config.codebook_dim).to(self.device) if semantic else None
        judge: nn.Module = PatchDiscriminator()
        if recipe.discriminator == "features" and self.classifier is not None:
            judge = FeatureDiscriminator(self.classifier)
        self.discriminator = channels_last(judge, self.device)
        if recipe.decoder_only:
            self.model.requires_grad_(False)
            for part in (self.model.post_quant_conv, self.model.decoder):
                part.requires_grad_(True)
        betas, trained = (recipe.beta1, recipe.beta2), [self.model, *filter(None, [self.head])]
        self.optimizers = (
            adamw(nn.ModuleList(trained), recipe.rate, recipe.weight_decay, betas),
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
        if self.head is not None:
            parts["head"] = self.head
        self._begin(folder, len(data), parts, hooks, identity)
        sets = zip((data, fine), self.shares, strict=True)
        self.sets = [
            self._ahead(images, share, i)
            for i, (images, share) in enumerate(sets)
            if images and share
        ]
        _prepare_blocks(self.model, recipe)

    def _ahead(self, images: Pixels, batch: int, number: int) -> tuple[Ahead, int]:
        """This process's shares of shuffled batches, read ahead, and how large a batch is."""
        picks = self._batches(len(images), batch, self.recipe.seed + number)
        pin = self.device.type == "cuda"
        return Ahead(picks, lambda pick: images.pixels(self.processes.share(pick)), pin=pin), batch

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Of the averaged model on about 1,000 validation images, of every class if they are in
        order: PSNR in dB, the share of codes that are used, their perplexity.
        """
        images = self.val.images[:: max(1, len(self.val) // 1000)].to(self.device)
        # each process sees its share; of fewer images than processes, each all
        mine = self.processes.share(images) if len(images) >= self.processes.world else images
        codes = torch.cat([self.average.encode(normalize(i)) for _, [i] in in_parts(mine)])
        counts = torch.bincount(codes.flatten(), minlength=len(self.use.counts))
        quality = psnr(reconstruct(self.average, mine), mine)
        sums = torch.tensor([quality * len(mine), len(mine)], device=self.device)
        share = (all_counts := self.processes.total(counts)) / all_counts.sum()
        decibels, seen = self.processes.total(sums).tolist()
        return {
            "psnr": decibels / seen,
            "val_used": (share > 0).float().mean().item(),
            "perplexity": torch.special.entr(share).sum().exp().item(),
        }

    def _step(self, progress: float) -> dict[str, Tensor]:
        """One update of tokenizer and discriminator on this process's share of a batch; its
        figures.
        """
        r, step = self.recipe, self.run_state.step
        self._prepare(progress)
        targets = self._targets()
        adversarial = r.adversarial > 0 and progress >= r.adversarial_start
        batches = zip(*(batch.chunk(r.accumulate) for batch in targets), strict=True)
        parts = [self._part(list(some), adversarial) for some in batches]
        for network in filter(None, (self.model, self.head)):
            self.processes.average_gradients(network)
        norm, good = self._update()
        figures = [part.figures for part in parts]
        out = {name: torch.stack([f[name] for f in figures]).mean() for name in figures[0]}
        if adversarial and good:
            shown = torch.cat([part.shown for part in parts])
            out["discriminator"] = self._discriminator_step(targets[-1], shown)
        for part in parts:
            self.use.add(part.codes)
        out |= {"norm": norm, "used": self.use.used()}
        early = step in (10, 30, 60, 100)  # a random codebook starts far from the features
        due = early or (step and step % r.revive_every == 0)
        if due and progress < 0.5 and not r.decoder_only:
            features = torch.cat([part.features for part in parts])
            self.use.revive(self.model.quantize.embedding.weight, features)
        return out

    def _part(self, targets: list[Tensor], adversarial: bool) -> Part:
        """Add the gradient of a part of this process's share of a batch."""
        r, device = self.recipe, self.device
        images = torch.cat([reduced(t, self.model.config.image_size) for t in targets])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.set_grad_enabled(not r.decoder_only):
                features = self.model.features(images)
                quantized = self.model.quantize_features(features)
                of_codes = (
                    r.codebook * quantized.codebook_loss + r.commitment * quantized.commitment_loss
                )
            figures = {"commitment": quantized.commitment_loss}
            if self.head is not None and self.classifier is not None:
                seen = self.classifier.semantics(images, self.model.config.grid)
                figures["semantic"] = self.head(quantized.vectors, seen)
                of_codes = of_codes + r.semantic * figures["semantic"]
            made = self.model.decode_vectors(quantized.vectors)
            # gradients meet at the image, so that each network is passed once
            towards, figures[r.pixel], figures["perceptual"] = self._towards(made, targets)
            shown = made[-len(targets[-1]) :]
            if adversarial:
                fooling = torch.zeros_like(towards)
                self.discriminator.requires_grad_(False)
                size = targets[-1].shape[-1]
                fooling[-len(shown) :], _ = at_images(
                    lambda part: (-self.discriminator(reduced(part, size)).mean(),), shown
                )
                weight = adaptive_weight(
                    made, towards, fooling, self.model.last_weight, self.processes
                )
                towards = towards + r.adversarial * weight * fooling
                figures["weight"] = weight
        if r.decoder_only:
            made.backward(towards / r.accumulate)
        else:
            wanted = [towards / r.accumulate, torch.full_like(of_codes, 1 / r.accumulate)]
            torch.autograd.backward([made, of_codes], wanted)
        kept = {name: figure.detach() for name, figure in figures.items()}
        judged = reduced(shown.detach(), targets[-1].shape[-1])
        return Part(kept, quantized.codes, features.detach(), judged)

    def _targets(self) -> list[Tensor]:
        """This process's share of a batch, in [-1, 1]: crops of images as large as what goes in,
        then of those as large as what comes out, where there are any.
        """
        found = []
        for ahead, batch in self.sets:
            draw = self.processes.share(torch.rand(4, batch, generator=self.generator).T).T
            pixels = next(ahead).to(self.device, non_blocking=True)
            images = crops(pixels, self.recipe.min_scale, draw.to(self.device))
            found.append(images.contiguous(memory_format=torch.channels_last))
        return found

    def _towards(self, made: Tensor, targets: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the pixel and the perceptual distance at the images ``made``, and both,
        means over the images of all sizes.
        """
        r, distance = self.recipe, F.mse_loss if self.recipe.pixel == "mse" else F.l1_loss

        def losses(part: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
            shown = reduced(part, wanted.shape[-1])
            pixel = distance(shown, wanted)
            perceptual = perceptual_distance(self.loss_network, shown, wanted)
            return pixel + r.perceptual * perceptual, pixel, perceptual

        grads, total = [], torch.zeros(3, device=made.device)
        for part, wanted in zip(made.split([len(t) for t in targets]), targets, strict=True):
            share = len(part) / len(made)
            grad, figures = at_images(losses, part, wanted)
            grads.append(share * grad)
            total += share * torch.stack(figures)
        return torch.cat(grads), total[1], total[2]

    def _discriminator_step(self, images: Tensor, made: Tensor) -> Tensor:
        self.discriminator.requires_grad_(True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            loss = learn_to_tell(self.discriminator, images, made)
        self.processes.average_gradients(self.discriminator)
        self.optimizers[1].step()
        self.optimizers[1].zero_grad(set_to_none=True)
        return loss


def batch_shares(
    config: VQConfig, recipe: TokenizerRecipe, world: int, fine: Pixels | None
) -> tuple[int, int]:
    """How many images of a batch are as large as what goes in, and as what comes out. InvalidInput
    where such a batch cannot be had.
    """
    if not 0 <= recipe.fine_share <= 1:
        raise InvalidInput(f"fine_share is {recipe.fine_share:g}; it must be in [0, 1]")
    share = round(recipe.batch * recipe.fine_share)
    if share and (fine is None or config.output_size == config.image_size):
        raise InvalidInput(
            f"fine_share is {recipe.fine_share:g}: it needs images as large as what comes out, and "
            "a tokenizer where that is more than goes in; give them, or take 0"
        )
    for part in (recipe.batch - share, share):
        check_batch(part, world, recipe.accumulate)
    return recipe.batch - share, share
