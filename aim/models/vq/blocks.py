"""What the tokenizer's encoder and decoder are made of, and both of them. Tensor names are
LlamaGen's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from aim.config import GROUPS, VQConfig


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
    return GroupNorm(GROUPS, channels, eps=1e-6)


def conv(
    cin: int, cout: int, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """A convolution that keeps an image's size, unless ``stride`` or ``padding`` say otherwise."""
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2 if padding is None else padding)


class ResBlock(nn.Module):
    """Two norm-SiLU-convolution pairs around a shortcut."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(cin), conv(cin, cout)
        self.norm2, self.conv2 = _norm(cout), conv(cout, cout)
        if cin != cout:
            self.nin_shortcut = conv(cin, cout, 1)
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
        self.q, self.k, self.v, self.proj_out = (conv(channels, channels, 1) for _ in range(4))

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
        self.conv = conv(channels, channels, 3, 2, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

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
        self.conv_in = conv(3, config.ch)
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
        self.norm_out, self.conv_out = _norm(widths[-1]), conv(widths[-1], config.z_channels)

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
        widths = [config.ch * m for m in reversed(config.decoder_levels)]
        last = len(widths) - 1
        self.conv_in = conv(config.z_channels, widths[0])
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
        self.norm_out, self.conv_out = _norm(widths[-1]), conv(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, z_channels, h, w) -> (B, 3, H, W)."""
        x = self.mid(self.conv_in(x))
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
