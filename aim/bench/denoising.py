"""Denoising with a class and guidance, a step in one piece: as few launches as diffusers' modules
allow, on a GPU one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from aim.bench.diffusion import NULL, Diffusion
from aim.images import write
from aim.models.image_decoder import tuned
from aim.ops.capture import capture

NEVER = -1000.0  # the logarithm of no variance, finite so that what it is mixed with stays so
VARIANTS = 64  # of a block, compiled for its batch size: more than anybody measures
CHUNK = 16  # pictures that are decoded together


def schedule(model: Diffusion) -> tuple[Tensor, Tensor]:
    """(steps,) int64, the noise levels of ``model`` in their order, and (steps, 4) float32, what a
    step does there: ``next = a x + b eps + exp(mix(low, high) / 2) noise``, as a, b, low, high.

    DDIM is that of https://arxiv.org/abs/2010.02502 with eta 0, DDPM that of
    https://arxiv.org/abs/2102.09672, whose model says by its other channels how ``low`` and
    ``high`` mix.
    """
    model.scheduler.set_timesteps(model.sampler.steps)
    at = torch.as_tensor(model.scheduler.timesteps).cpu().long()
    kept = model.scheduler.alphas_cumprod.double().cpu()[at]
    after = torch.cat([kept[1:], kept.new_ones(1)])
    none = torch.full_like(kept, NEVER)
    if model.sampler.kind == "ddim":
        a = (after / kept).sqrt()
        columns = [a, (1 - after).sqrt() - a * (1 - kept).sqrt(), none, none]
    else:
        alpha = kept / after
        beta = 1 - alpha
        clean = after.sqrt() * beta / (1 - kept)
        a = clean / kept.sqrt() + alpha.sqrt() * (1 - after) / (1 - kept)
        b = -clean * ((1 - kept) / kept).sqrt()
        low = (beta * (1 - after) / (1 - kept)).clamp(min=1e-20).log()
        low[-1] = NEVER
        columns = [a, b, low, torch.where(low > NEVER, beta.log(), low)]
    return at, torch.stack(columns, 1).float()


class Denoiser:
    """A batch of one model's pictures. ``labels`` (B,) are their classes, ``guidance`` 1 is none
    and takes one row a picture instead of two.
    """

    def __init__(self, model: Diffusion, labels: Sequence[int], guidance: float) -> None:
        self.model, self.guidance, self.batch = model, guidance, len(labels)
        device = model.device
        at, table = schedule(model)
        self._times, self._table = at.to(device), table.to(device)
        null = [] if guidance == 1 else [NULL] * len(labels)
        self._labels = torch.tensor([*labels, *null], device=device)
        self.latents = torch.zeros(self.batch, *model.latent, device=device)  # float32
        self._noise = torch.zeros_like(self.latents)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._step: Callable[[], object] = self._eager
        self._images: Callable[[Tensor], Tensor] = self._pixels

    def prepare(self) -> None:
        """Compile and record what the device can repeat; its time is not a picture's."""
        parts = [*self.model.transformer.transformer_blocks, self.model.image_decoder.decoder]
        for part in parts if self.model.compiled else ():
            if part._compiled_call_impl is None:
                part.compile(dynamic=False)
        if self.model.device.type != "cuda":
            return
        stream = torch.cuda.Stream(self.model.device)
        some = self.latents[: min(CHUNK, self.batch)].clone()
        tune = tuned(self.model.dtype == torch.bfloat16)
        with torch._dynamo.config.patch(recompile_limit=VARIANTS), tune:
            graph, _ = capture(self._eager, stream)
            decode, pixels = capture(partial(self._pixels, some), stream)
        self._step = graph.replay

        def images(latents: Tensor) -> Tensor:
            some[: len(latents)].copy_(latents)
            decode.replay()
            return pixels[: len(latents)].clone()

        self._images = images

    @torch.inference_mode()
    def denoise(
        self, seeds: Sequence[int], after_step: Callable[[], object], most: int | None = None
    ) -> None:
        """From the noise of ``seeds`` to ``latents``, each of which depends on its own seed alone;
        ``after_step`` is called when a step was ordered. After ``most`` steps it is left as it is.
        """
        sources = [torch.Generator(self.model.device).manual_seed(seed) for seed in seeds]
        for latent, source in zip(self.latents, sources, strict=True):
            latent.normal_(generator=source)
        self._at.zero_()
        fresh = self.model.sampler.kind == "ddpm"
        steps = len(self._times)
        for step in range(steps if most is None else min(most, steps)):
            if fresh and step < steps - 1:
                for noise, source in zip(self._noise, sources, strict=True):
                    noise.normal_(generator=source)
            self._step()
            after_step()

    @torch.inference_mode()
    def images(self) -> list[Tensor]:
        """(n, H, W, 3) uint8 each, on the device, of all pictures."""
        return [self._images(some) for some in self.latents.split(CHUNK)]

    @torch.inference_mode()
    def _eager(self) -> None:
        x, model, two = self.latents, self.model, self.guidance != 1
        a, b, low, high = self._table[self._at].view(4, 1, 1, 1, 1)
        rows = torch.cat([x, x] if two else [x]).to(model.dtype)
        at = self._times[self._at].expand(len(rows))
        told = model.transformer(rows, timestep=at, class_labels=self._labels, return_dict=False)[
            0
        ].float()  # (rows, 2C, H, W)
        eps, mix = told[:, : x.shape[1]], told[: self.batch, x.shape[1] :]
        if two:
            cond, uncond = eps.chunk(2)
            eps = uncond + self.guidance * (cond - uncond)
        after = a * x + b * eps
        if model.sampler.kind == "ddpm":
            share = (mix + 1) / 2
            after += (0.5 * (share * high + (1 - share) * low)).exp() * self._noise
        x.copy_(after)
        self._at.add_(1).clamp_(max=len(self._times) - 1)

    @torch.inference_mode()
    def _pixels(self, latents: Tensor) -> Tensor:
        decoder = self.model.image_decoder
        scaled = (latents / decoder.config.scaling_factor).to(self.model.dtype)
        found = decoder.decode(scaled, return_dict=False)[0]
        return write.to_bytes(found).permute(0, 2, 3, 1).contiguous()
