"""From codes to pictures and back, with a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aim.images import read, write
from aim.models.image_decoder import ImageDecoder, kept_size
from aim.models.preview import Previewer
from aim.models.vq.model import VQ


class Codec:
    """Pictures of codes and codes of pictures. Everything here may be called from several
    threads.
    """

    def __init__(self, tokenizer: VQ) -> None:
        self.tokenizer = tokenizer
        self._image_decoder, self._previewer = ImageDecoder(tokenizer), Previewer(tokenizer)
        self._reducing: dict[int, ImageDecoder] = {}  # by the size that they reduce pictures to

    @property
    def rough_previews(self) -> bool:
        """Whether the decoder is too slow for previews on this device, so that they show one colour
        a code.
        """
        return self._previewer.rough

    def reads(self, other: Codec) -> bool:
        """Whether codes of ``other`` mean the same here."""
        mine, theirs = (one.tokenizer.quantize.embedding.weight for one in (self, other))
        return mine.shape == theirs.shape and bool(torch.equal(mine, theirs))

    def picture(self, codes: np.ndarray, size: int | str | None = None) -> Image.Image:
        """The RGB image of all its codes (num_tokens,); ``size`` as of ``pictures``."""
        return self.pictures([codes], size)[0]

    def pictures(
        self, codes: Iterable[np.ndarray], size: int | str | None = None
    ) -> list[Image.Image]:
        """The RGB images of all their codes, in order, decoded while the next codes are awaited;
        reduced to ``size`` pixels each way where that is given. See ``ImageDecoder`` for what is
        equal. InvalidInput for a size that is larger than what the model draws.
        """
        side, decoder = kept_size(size, self.tokenizer.config), self._image_decoder
        if side != self.tokenizer.config.output_size:
            if side not in self._reducing:
                self._reducing[side] = ImageDecoder(self.tokenizer, side)
            decoder = self._reducing[side]
        return [Image.fromarray(pixels) for pixels in decoder.images(codes)]

    def preview(self, codes: np.ndarray) -> Image.Image | None:
        """The first codes (n,) as an RGBA image, transparent where nothing is drawn; None for
        none.
        """
        if len(codes) == 0:
            return None
        config = self.tokenizer.config
        grid, factor, size = config.grid, config.upsample, config.output_size
        here = self._image_decoder.device
        drawn = self._image_decoder.beside(
            lambda: write.to_image(self._previewer(torch.from_numpy(codes).to(here)))
        )
        image = Image.new("RGBA", (size, size))
        image.paste(drawn, (0, 0))
        lines, rest = divmod(len(codes), grid)
        if rest:
            image.paste((0, 0, 0, 0), (rest * factor, lines * factor, size, (lines + 1) * factor))
        return image

    def show(self, codes: np.ndarray) -> Image.Image | None:
        """What there is to see of the first codes (n,): the picture if these are all, else the
        preview.
        """
        whole = len(codes) == self.tokenizer.config.grid**2
        return self.picture(codes) if whole else self.preview(codes)

    def colours(self) -> np.ndarray:
        """The colour (codebook_size, 3) uint8 that each code has by itself, a linear function of
        its vector.
        """
        return self._image_decoder.beside(
            lambda: write.to_bytes(self._previewer.colours()).cpu().numpy()
        )

    def encode(self, image: Image.Image | bytes | str | Path) -> np.ndarray:
        """The codes (num_tokens,) int64 of a picture of any size and mode: its middle, cut square
        and scaled to the tokenizer's size.

        ``picture`` of them shows what the tokenizer keeps. InvalidInput for what cannot be read as
        a picture (``aim.images.read``).
        """
        square = read.open_square(image, self.tokenizer.config.image_size)

        @torch.inference_mode()
        def encoded() -> np.ndarray:
            pixels = read.to_pixels(square).to(self._image_decoder.device)
            return self.tokenizer.encode(pixels[None])[0].cpu().numpy()

        return self._image_decoder.beside(encoded)
