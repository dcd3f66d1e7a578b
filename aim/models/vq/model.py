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
from aim.models.vq.blocks import Decoder, Encoder, conv
from aim.ops.triton import fuses_group_norm


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
        self.quant_conv = conv(config.z_channels, config.codebook_dim, 1)
        self.post_quant_conv = conv(config.codebook_dim, config.z_channels, 1)

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
        """Whether ``gpu`` computes: without gradients, on a GPU that runs its kernels."""
        device = self.quant_conv.weight.device
        if not self.fusible or torch.is_grad_enabled() or torch.is_autocast_enabled(device.type):
            return False
        levels = (*self.config.ch_mult, *self.config.decoder_levels)
        return fuses_group_norm(device, [self.config.ch * m for m in levels])

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
        if self.fused:
            from aim.models.vq import gpu

            with torch.cuda.device(images.device):
                h = gpu.features(self.encoder, self.quant_conv, images)
        else:
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
                return gpu.decode_vectors(self.decoder, self.post_quant_conv, vectors)
        return self.decoder(self.post_quant_conv(vectors.to(self.dtype))).float()
