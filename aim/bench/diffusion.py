"""DiT as diffusers has it: the opponent of a race that draws by denoising, not code by code.

Scalable Diffusion Models with Transformers, https://arxiv.org/abs/2212.09748.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from aim.bench.weights import SEED, VERSION
from aim.checks import quoted
from aim.device import prepare
from aim.errors import AimError, CheckpointError, InvalidInput

HUB = "facebook/DiT-XL-2-256"
NULL = 1000  # the class of a row that guidance goes away from
# of the published models, for random weights
TRANSFORMER = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "sample_size": 32,
    "patch_size": 2,
    "num_embeds_ada_norm": NULL,
}
IMAGE_DECODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 256,
    "scaling_factor": 0.18215,
}
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": False,
}


@dataclass(frozen=True)
class Sampler:
    """How noise becomes a picture: ``ddim`` without fresh noise, or ``ddpm`` with as much as the
    model says, in ``steps``.
    """

    kind: Literal["ddim", "ddpm"]
    steps: int


SAMPLERS = {"dit-xl-50": Sampler("ddim", 50), "dit-xl-250": Sampler("ddpm", 250)}


@dataclass(frozen=True)
class Diffusion:
    """A class-conditional diffusion model in diffusers' modules, in evaluation mode, with how it
    samples. Latents are ``transformer.config.in_channels`` channels.
    """

    name: str
    version: str  # where the weights are from; "random" without any
    sampler: Sampler
    transformer: Any  # a DiTTransformer2DModel
    image_decoder: Any  # an AutoencoderKL
    scheduler: Any  # a DDIMScheduler, of which the noise levels are taken
    operations: int  # of the transformer for a row of one step, a product and its sum are two
    compiled: bool = False  # its blocks, by torch.compile; on a GPU alone

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return self.transformer.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations; latents stay in float32."""
        return self.transformer.dtype

    @property
    def classes(self) -> range:
        """The indices of the classes that it knows."""
        return range(self.transformer.config.num_embeds_ada_norm)

    @property
    def latent(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent picture."""
        config = self.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_size(self) -> int:
        """Pixels each way."""
        halvings = len(self.image_decoder.config.block_out_channels) - 1
        return self.transformer.config.sample_size * 2**halvings

    @property
    def backend(self) -> str:
        """How a step runs."""
        graph = "CUDA graph" if self.device.type == "cuda" else "eager"
        return f"torch.compile, {graph}" if self.compiled else graph


def named(name: str) -> tuple[Sampler, str] | None:
    """The sampler and the source of the weights, "" for the published ones, that a racer's name
    asks for: one of ``SAMPLERS``, perhaps with ``=`` and a repository or folder behind it. None for
    a name that is no diffusion model's.

    InvalidInput: DiT, but none of those.
    """
    known, _, source = name.partition("=")
    if known in SAMPLERS:
        return SAMPLERS[known], source
    if known.startswith("dit"):
        raise InvalidInput(f"there is no {quoted(known)}; choose one of {', '.join(SAMPLERS)}")
    return None


def load_diffusion(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    random_weights: bool = False,
) -> Diffusion:
    """The diffusion model that ``name`` asks for as ``named`` says, with its published weights or
    with ``random_weights``, as users of diffusers have it at its best: on a GPU its blocks are
    compiled, unless ``backend`` is eager.

    AimError: diffusers is not installed. CheckpointError: no weights in safetensors there.
    """
    found = named(name)
    if found is None:
        raise InvalidInput(f"no diffusion model is called {quoted(name)}")
    sampler, source = found
    diffusers = _diffusers()
    where, what = prepare(device, dtype)
    make = _random if random_weights else _published
    transformer, decoder, scheduler = make(diffusers, source or HUB, where, what)
    for part in (transformer, decoder):
        part.to(where).eval().requires_grad_(False)
    compiled = where.type == "cuda" and backend != "eager"
    version = VERSION if random_weights else source or HUB
    short = name.partition("=")[0]
    if where.type == "cuda":
        decoder.to(memory_format=torch.channels_last)
    operations = count_operations(transformer)
    return Diffusion(short, version, sampler, transformer, decoder, scheduler, operations, compiled)


def sampled_as(model: Diffusion, name: str) -> Diffusion:
    """The same weights with another of ``SAMPLERS``; a source in ``name`` is left out."""
    name = name.partition("=")[0]
    return replace(model, name=name, sampler=SAMPLERS[name])


def count_operations(transformer: Any) -> int:
    """What a row of one step takes, counted while it runs."""
    config, like = transformer.config, {"device": transformer.device}
    noise = torch.zeros(
        1, config.in_channels, config.sample_size, config.sample_size, dtype=transformer.dtype,
        **like,
    )  # fmt: skip
    at = torch.zeros(1, dtype=torch.int64, **like)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        transformer(noise, timestep=at, class_labels=at)
    return counter.get_total_flops()


Parts = tuple[Any, Any, Any]


def _random(diffusers: Any, source: str, device: torch.device, dtype: torch.dtype) -> Parts:
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(SEED)
        transformer = diffusers.DiTTransformer2DModel(**TRANSFORMER)
        decoder = diffusers.AutoencoderKL(**IMAGE_DECODER)
    for part in (transformer, decoder):
        torch.nn.Module.to(part, dtype=dtype)  # diffusers' own warns of weights that are trained
    return transformer, decoder, diffusers.DDIMScheduler(**SCHEDULE)


def _published(diffusers: Any, source: str, device: torch.device, dtype: torch.dtype) -> Parts:
    how = {"use_safetensors": True, "torch_dtype": dtype}
    parts: Sequence[tuple[Callable[..., Any], dict[str, Any]]] = (
        (diffusers.DiTTransformer2DModel.from_pretrained, {"subfolder": "transformer", **how}),
        (diffusers.AutoencoderKL.from_pretrained, {"subfolder": "vae", **how}),
        (diffusers.DDIMScheduler.from_pretrained, {"subfolder": "scheduler"}),
    )
    try:
        transformer, decoder, scheduler = (read(source, **more) for read, more in parts)
    except (OSError, ValueError) as error:
        brief = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"no DiT in safetensors was read from {source} ({brief}); name a repository or a "
            "folder that DiTPipeline.save_pretrained wrote, as dit-xl-50=FOLDER, or take "
            "--random-weights"
        ) from error
    return transformer, decoder, scheduler


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise AimError(
            'DiT needs diffusers, which is not installed: pip install "aim-mamba[diffusion]", or '
            'pip install -e ".[diffusion]" in a checkout'
        ) from error
    return diffusers
