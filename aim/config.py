"""Configurations as data: models, tokenizers, sampling. One table names every model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from aim import checks
from aim.errors import InvalidInput
from aim.parameters import Declared, declare, declared
from aim.schedules import SCHEDULES

MAX_SEED = 2**32 - 1
GROUPS = 32  # of a tokenizer's norms


def check_seed(value: Any) -> int:
    """``value`` as a seed, 0 ... 2^32 - 1; else InvalidInput."""
    return checks.whole("seed", value, 0, MAX_SEED)


@dataclass(frozen=True)
class SamplingParams(Declared):
    """How codes are drawn; see ``aim.sampling`` for the exact computation. Values out of range
    raise InvalidInput.

    Each parameter is declared here and nowhere else: see ``aim.parameters``.
    """

    cfg_scale: float = declare(
        2.0, "guidance", "Pull towards the class; 1 is none.", 1.0,
        high=30.0, slider=(0, 15, 0.05), captioned=True,
    )  # fmt: skip
    temperature: float = declare(
        1.0, "temperature", "0 takes the likeliest.", 1.0,
        high=10.0, slider=(0, 2, 0.01), captioned=True,
    )  # fmt: skip
    top_k: int = declare(
        0, "top-k", "Likeliest codes kept; 0 is all.", 0, high=2**31 - 1, whole=True
    )
    top_p: float = declare(
        1.0, "top-p", "Probability kept; 1 is all.", 1.0, open_low=True, slider=(0.01, 1, 0.01)
    )
    min_p: float = declare(
        0.0, "min-p", "Least share of the likeliest's probability; 0 is all.", 0.0,
        slider=(0, 1, 0.01), stored=lambda share: math.log(share) if share else -math.inf,
    )  # fmt: skip
    cfg_schedule: str = declare(
        "constant", "guidance schedule", "How guidance grows over the codes.", "constant",
        choices=tuple(SCHEDULES),
    )  # fmt: skip
    cfg_from: float = declare(
        0.0, "guidance from", "Share of the codes before it.", 0.0, slider=(0, 1, 0.05)
    )
    cfg_to: float = declare(
        1.0, "guidance to", "Share of the codes after which it ends.", 1.0, slider=(0, 1, 0.05)
    )


SAMPLING = declared(SamplingParams)
INDEX = {p.name: i for i, p in enumerate(SAMPLING)}  # of its row where a batch's are tensors
NEUTRAL = SamplingParams(**{p.name: p.neutral for p in SAMPLING})


def _check_classes(config: PriorConfig) -> None:
    for name in ("classes", "class_names"):
        count = len(getattr(config, name))
        if count not in (0, config.num_classes):
            raise InvalidInput(f"{name} has {count} entries for num_classes = {config.num_classes}")
    if config.classes and config.class_names:
        raise InvalidInput(
            "class_names are for classes of the model's own, and classes says that they are "
            "ImageNet's; leave one out"
        )


@dataclass(frozen=True)
class AiMConfig:
    """Autoregressive Mamba-2 decoder (arXiv 2408.12245); field names follow the official
    ``config.json`` where it has them.
    """

    d_model: checks.Width
    n_layer: checks.Layers
    vocab_size: checks.Count = 16384
    num_classes: checks.Count = 1000
    num_tokens: checks.Count = 256
    adaln_group: bool = True  # False: plain adaLN, one modulation a layer
    num_groups: checks.Layers = 4  # of adaLN-group; 1 is adaLN-single
    d_state: checks.Width = 128
    d_conv: checks.Few = 4
    expand: checks.Few = 2
    headdim: checks.Width = 64
    norm_eps: checks.Share = 1e-5
    token_drop: checks.Share = 0.0
    mixer_drop: checks.Share = 0.0
    # added to an image code's position in `step` and `prefill`; 1 for official weights
    position_offset: checks.ZeroOrOne = 0
    classes: checks.ClassIndices = ()  # ImageNet index of each row; empty: of the model's own
    class_names: checks.ClassNames = ()  # of the model's own classes; empty: they have none
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def __post_init__(self) -> None:
        if self.d_inner % self.headdim:
            raise InvalidInput(
                f"headdim {self.headdim} does not divide expand * d_model = {self.d_inner}"
            )
        if self.adaln_group and not 1 <= self.num_groups <= self.n_layer:
            raise InvalidInput(
                f"num_groups is {self.num_groups}; it must be in [1, n_layer = {self.n_layer}]"
            )
        _check_classes(self)

    @property
    def d_inner(self) -> int:
        """Channels inside the mixer."""
        return self.expand * self.d_model

    @property
    def nheads(self) -> int:
        """Heads of the state space model."""
        return self.d_inner // self.headdim

    @property
    def conv_dim(self) -> int:
        """Channels of the causal convolution: x, B and C."""
        return self.d_inner + 2 * self.d_state


@dataclass(frozen=True)
class GPTConfig:
    """Class-conditional Transformer decoder of LlamaGen (arXiv 2406.06525): RMSNorm, SwiGLU, 2-D
    rotary embedding, one class token.

    The codes are a square grid: ``num_tokens`` is a square, and a head's size a multiple of 4.
    """

    d_model: checks.Width
    n_layer: checks.Layers
    n_head: checks.Layers
    vocab_size: checks.Count = 16384
    num_classes: checks.Count = 1000
    num_tokens: checks.Count = 256
    multiple_of: checks.Width = 256  # divides the hidden width of the feed-forward network
    rope_base: checks.Positive = 10000.0
    norm_eps: checks.Share = 1e-5
    token_drop: checks.Share = 0.0
    resid_drop: checks.Share = 0.0  # of what attention adds
    ffn_drop: checks.Share = 0.0  # of what the feed-forward network adds
    classes: checks.ClassIndices = ()  # ImageNet index of each row; empty: of the model's own
    class_names: checks.ClassNames = ()  # of the model's own classes; empty: they have none
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def __post_init__(self) -> None:
        if self.d_model % (4 * self.n_head):
            raise InvalidInput(
                f"n_head {self.n_head} must cut d_model {self.d_model} into heads of 4, 8, 12 ..."
            )
        if math.isqrt(self.num_tokens) ** 2 != self.num_tokens:
            raise InvalidInput(
                f"num_tokens is {self.num_tokens}; it must be a square: codes are a square grid"
            )
        _check_classes(self)

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.d_model // self.n_head

    @property
    def d_ffn(self) -> int:
        """Hidden channels of the feed-forward network: 8/3 d_model, up to a ``multiple_of``."""
        return -(-int(8 * self.d_model / 3) // self.multiple_of) * self.multiple_of

    @property
    def grid(self) -> int:
        """Codes each way."""
        return math.isqrt(self.num_tokens)


PriorConfig = AiMConfig | GPTConfig


@dataclass(frozen=True)
class VQConfig:
    """VQ tokenizer: convolutional encoder, l2-normalised codebook, convolutional decoder
    (LlamaGen's VQ-16 tree). The decoder may have more levels than the encoder: then pictures come
    out larger than they went in.
    """

    image_size: checks.Side = 256  # pixels of what goes in, each way
    codebook_size: checks.Count = 16384
    codebook_dim: checks.Width = 8
    z_channels: checks.Width = 256
    ch: checks.Width = 128
    ch_mult: checks.Levels = (1, 1, 2, 2, 4)
    decoder_ch_mult: checks.Levels = ()  # from the largest level down; empty: as ``ch_mult``
    num_res_blocks: checks.Few = 2

    def __post_init__(self) -> None:
        if not self.ch_mult or self.image_size % self.downsample:
            raise InvalidInput(
                f"image_size is {self.image_size} for {len(self.ch_mult)} levels, ch_mult; it must "
                "be a multiple of 2 for every level but one"
            )
        if any(self.ch * mult % GROUPS for mult in (1, *self.ch_mult, *self.decoder_levels)):
            raise InvalidInput(f"ch is {self.ch}; it must be a multiple of {GROUPS}, as norms need")
        if len(self.decoder_levels) < len(self.ch_mult):
            raise InvalidInput(
                f"decoder_ch_mult is {self.decoder_ch_mult}; it must have at least as many levels "
                f"as ch_mult, {len(self.ch_mult)}, or none"
            )

    @property
    def downsample(self) -> int:
        """Pixels of what goes in that a code spans each way."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def upsample(self) -> int:
        """Pixels of what comes out that a code spans each way."""
        return 2 ** (len(self.decoder_levels) - 1)

    @property
    def decoder_levels(self) -> tuple[int, ...]:
        """Width of each of the decoder's levels over ``ch``, from the largest down."""
        return self.decoder_ch_mult or self.ch_mult

    @property
    def grid(self) -> int:
        """Codes each way."""
        return self.image_size // self.downsample

    @property
    def output_size(self) -> int:
        """Pixels of what comes out, each way."""
        return self.grid * self.upsample


@dataclass(frozen=True)
class ModelSpec:
    """A named model: its configuration, its tokenizer's, and where its weights are."""

    name: str
    config: PriorConfig
    tokenizer: VQConfig
    source: Literal["bundled", "hub", "none"]
    repo: str = ""  # hub id
    download_mb: int = 0
    file: str = ""  # of the weights in ``repo``, where that holds several models


VQ_F16 = VQConfig()
VQ_F16_384 = dataclasses.replace(VQ_F16, image_size=384)  # the same weights, on larger images
VQ_F4 = VQConfig(image_size=64, codebook_size=2048, z_channels=128, ch=64, ch_mult=(1, 2, 2))
VQ_S = dataclasses.replace(VQ_F4, codebook_size=4096, decoder_ch_mult=(1, 1, 2, 2))


def _imagenet(d_model: int, n_layer: int, cfg_scale: float, num_groups: int = 4) -> AiMConfig:
    sampling, group = SamplingParams(cfg_scale=cfg_scale), num_groups > 1
    sizes = AiMConfig(d_model, n_layer, adaln_group=group, num_groups=num_groups)
    return dataclasses.replace(sizes, position_offset=1, sampling=sampling)


LLAMAGEN = "FoundationVision/LlamaGen"


def _llamagen(width: int, layers: int, heads: int, cfg: float = 2.0, codes: int = 256) -> GPTConfig:
    return GPTConfig(width, layers, heads, num_tokens=codes, sampling=SamplingParams(cfg_scale=cfg))


def _llamagen_384(size: str, megabytes: int, config: GPTConfig) -> ModelSpec:
    name, file = f"gpt-{size.lower()}-384", f"c2i_{size}_384.pt"
    return ModelSpec(name, config, VQ_F16_384, "hub", LLAMAGEN, megabytes, file)


AIM_S = AiMConfig(768, 8, vocab_size=4096, num_classes=286, num_groups=2, d_state=64)
GPT_S = GPTConfig(576, 8, 9, vocab_size=4096, num_classes=286, multiple_of=64)

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec("aim-s", AIM_S, VQ_S, "bundled"),
        ModelSpec("aim-b", _imagenet(768, 24, 2.0, 1), VQ_F16, "hub", "hp-l33/aim-base", 880),
        ModelSpec("aim-l", _imagenet(1024, 48, 1.75), VQ_F16, "hub", "hp-l33/aim-large", 1690),
        ModelSpec("aim-xl", _imagenet(1536, 48, 1.75), VQ_F16, "hub", "hp-l33/aim-xlarge", 3340),
        ModelSpec("aim-1b", _imagenet(2048, 48, 1.75), VQ_F16, "none"),
        ModelSpec("gpt-s", GPT_S, VQ_S, "bundled"),
        ModelSpec("gpt-b", _llamagen(768, 12, 12), VQ_F16, "hub", LLAMAGEN, 740, "c2i_B_256.pt"),
        ModelSpec("gpt-l", _llamagen(1024, 24, 16), VQ_F16, "hub", LLAMAGEN, 1670, "c2i_L_256.pt"),
        ModelSpec("gpt-xl", _llamagen(1280, 36, 20, 1.75), VQ_F16, "none"),
        _llamagen_384("B", 740, _llamagen(768, 12, 12, 2.0, 576)),
        _llamagen_384("L", 1670, _llamagen(1024, 24, 16, 2.0, 576)),
        _llamagen_384("XL", 3390, _llamagen(1280, 36, 20, 1.75, 576)),
        _llamagen_384("XXL", 5930, _llamagen(1536, 48, 24, 1.75, 576)),
        _llamagen_384("3B", 12680, _llamagen(3200, 24, 32, 1.65, 576)),
    )
}
