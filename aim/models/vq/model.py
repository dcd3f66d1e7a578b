"""The VQ tokenizer: LlamaGen's VQ-16 network (github.com/FoundationVision/LlamaGen), also at
smaller sizes.

Images are (B, 3, H, W) in [-1, 1], features (B, C, h, w), codes (B, h * w) row by row. Tensor names
are LlamaGen's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.config import VQConfig
from aim.errors import InvalidInput
from aim.ops.triton import fuses_group_norm


class GroupNorm(nn.GroupNorm):
    """A group norm whose weights stay float32: cast to the activations' dtype in use, since CUDA
    refuses to mix the two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape and dtype."""
        return F.group_norm(
            x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
        )


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(32, channels, eps=1e-6)


def _conv(
    cin: int, cout: int, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2 if padding is None else padding)


class ResBlock(nn.Module):
    """Two norm-SiLU-convolution pairs around a shortcut."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(cin), _conv(cin, cout)
        self.norm2, self.conv2 = _norm(cout), _conv(cout, cout)
        if cin != cout:
            self.nin_shortcut = _conv(cin, cout, 1)
        self.changes = cin != cout

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) -> (B, cout, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if self.changes else x) + h


class AttnBlock(nn.Module):
    """Single-head attention over the grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (_conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        h = self.norm(x)
        # of shape (B, h*w, C)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """Stride-2 convolution, padded right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels, 3, 2, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each with attention behind it at the lowest, then a change
    of size.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        blocks: int,
        attention: bool,
        resize: str = "",
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.res = nn.ModuleList(ResBlock(cin if i == 0 else cout, cout) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(cout) for _ in range(blocks if attention else 0))
        self.resize = resize
        if after is not None:
            self.add_module(resize, after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) -> (B, cout, h', w')."""
        for i, block in enumerate(self.res):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return getattr(self, self.resize)(x) if self.resize else x


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(
        ResBlock(channels, channels), AttnBlock(channels), ResBlock(channels, channels)
    )


class Encoder(nn.Module):
    """Images to features."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        last = len(widths) - 1
        self.conv_in = _conv(3, config.ch)
        self.conv_blocks = nn.ModuleList(
            Level(
                cin,
                cout,
                config.num_res_blocks,
                i == last,
                *(() if i == last else ("downsample", Downsample(cout))),
            )
            for i, (cin, cout) in enumerate(zip([config.ch, *widths], widths, strict=False))
        )
        self.mid = _middle(widths[-1])
        self.norm_out, self.conv_out = _norm(widths[-1]), _conv(widths[-1], config.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, z_channels, h, w)."""
        x = self.conv_in(x)
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features to images."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in reversed(config.ch_mult)]
        last = len(widths) - 1
        self.conv_in = _conv(config.z_channels, widths[0])
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.ModuleList(
            Level(
                cin,
                cout,
                config.num_res_blocks + 1,
                i == 0,
                *(() if i == last else ("upsample", Upsample(cout))),
            )
            for i, (cin, cout) in enumerate(zip([widths[0], *widths], widths, strict=False))
        )
        self.norm_out, self.conv_out = _norm(widths[-1]), _conv(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, z_channels, h, w) -> (B, 3, H, W)."""
        x = self.mid(self.conv_in(x))
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Quantized(NamedTuple):
    """What ``VQ.quantize_features`` returns."""

    codes: Tensor  # (B, h * w)
    vectors: Tensor  # (B, codebook_dim, h, w), the gradient passed straight to the encoder
    codebook_loss: Tensor  # mean squared distance that moves the codes
    commitment_loss: Tensor  # the same value, moving the encoder


class Codebook(nn.Module):
    """l2-normalised codes; the nearest is the one with the largest cosine."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        nn.init.normal_(self.embedding.weight)

    def normalized(self) -> Tensor:
        """(codebook_size, codebook_dim) of unit length, float32."""
        return F.normalize(self.embedding.weight.float(), dim=-1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """(..., codebook_dim) of unit length -> (...) codes."""
        flat = vectors.flatten(0, -2)
        table = self.normalized()
        # the nearest of thousands needs float32
        with torch.autocast(flat.device.type, enabled=False):
            # bounds the memory of large batches
            parts = [(part @ table.T).argmax(-1) for part in flat.split(8192)]
        return torch.cat(parts).view(vectors.shape[:-1])


class VQ(nn.Module):
    """The tokenizer: ``encode`` images to codes, ``decode`` codes to images. ``fusible`` is whether
    it may do so in fused kernels.
    """

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.fusible = True
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config)
        self.quant_conv = _conv(config.z_channels, config.codebook_dim, 1)
        self.post_quant_conv = _conv(config.codebook_dim, config.z_channels, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""
        return self.quant_conv.weight.dtype

    @property
    def last_weight(self) -> Tensor:
        """The decoder's last weight, where a discriminator's loss is balanced against the
        others.
        """
        return self.decoder.conv_out.weight

    @property
    def fused(self) -> bool:
        """Whether images are decoded by ``vq_fast``: without gradients, on a GPU that runs its
        kernels.
        """
        device = self.quant_conv.weight.device
        if not self.fusible or torch.is_grad_enabled() or torch.is_autocast_enabled(device.type):
            return False
        return fuses_group_norm(device, [self.config.ch * m for m in self.config.ch_mult])

    def to_dtype(self, dtype: torch.dtype) -> VQ:
        """Cast the convolutions in place; norms and codebook stay float32."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)
        return self

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> unit vectors (B, codebook_dim, h, w) float32, not yet
        quantized.
        """
        f = self.config.downsample
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % f or images.shape[3] % f:
            raise InvalidInput(
                f"images have shape {tuple(images.shape)}; it must be (B, 3, H, W), H and W "
                f"multiples of {f}"
            )
        h = self.quant_conv(self.encoder(images.to(self.dtype)))
        return F.normalize(h.float(), dim=1)

    def quantize_features(self, features: Tensor) -> Quantized:
        """Nearest codes of ``features`` (B, codebook_dim, h, w), with what training needs."""
        codes = self.quantize.nearest(features.permute(0, 2, 3, 1))  # (B, h, w)
        vectors = F.embedding(codes, self.quantize.normalized()).permute(0, 3, 1, 2)
        codebook = F.mse_loss(vectors, features.detach())
        commitment = F.mse_loss(features, vectors.detach())
        return Quantized(
            codes.flatten(1), features + (vectors - features).detach(), codebook, commitment
        )

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> codes (B, h * w)."""
        return self.quantize.nearest(self.features(images).permute(0, 2, 3, 1)).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, rows * grid) or (B, rows, columns) -> images (B, 3, H, W) float32, about [-1,
        1].
        """
        grid = codes if codes.dim() == 3 else codes.unflatten(1, (-1, self.config.grid))
        vectors = F.embedding(grid, self.quantize.normalized()).permute(0, 3, 1, 2)
        return self.decode_vectors(vectors)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Code vectors (B, codebook_dim, h, w) -> images (B, 3, H, W) float32."""
        if self.fused:
            from aim.models.vq import gpu

            with torch.cuda.device(vectors.device):
                return gpu.decode_vectors(self, vectors)
        return self.decoder(self.post_quant_conv(vectors.to(self.dtype))).float()
