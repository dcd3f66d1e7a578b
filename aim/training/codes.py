"""Images to codes, once: what stage 2 trains on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from aim.checkpoint.tensors import opened, write
from aim.errors import InvalidInput
from aim.models.vq import VQ
from aim.training.data import ImageSet, normalize, random_crops

FORMAT = "aim-codes"


class CodeSet(NamedTuple):
    """Several versions of every image as codes. Version 0 is the image, 1 its mirror image, the others random crops."""

    codes: Tensor  # (versions, N, T) int16, or int32 for a codebook that needs it
    labels: Tensor  # (N,) int64, class rows
    classes: tuple[int, ...]  # ImageNet index of each row

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        write(path, {"codes": self.codes, "labels": self.labels, "classes": torch.tensor(self.classes)}, {"format": FORMAT})

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> CodeSet:
        """Read what ``save`` wrote. InvalidInput for another file, CheckpointError for one that cannot be read."""
        with opened(path) as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise InvalidInput(f"{path} is not a file of codes; make one with `python -m aim.training.bundled codes`")
            codes, labels, classes = (file.get_tensor(name) for name in ("codes", "labels", "classes"))
        return cls(codes.to(device), labels.to(device), tuple(classes.tolist()))


@torch.no_grad()
def tokenize(model: VQ, data: ImageSet, versions: int, min_scale: float = 0.8, seed: int = 0, batch: int = 500) -> CodeSet:
    """Encode every image ``versions`` times; see ``CodeSet``. The model and the data are on one device."""
    dtype = torch.int16 if model.config.codebook_size <= 2**15 else torch.int32
    generator = torch.Generator(data.images.device).manual_seed(seed)
    rows = []
    for version in range(versions):
        parts = []
        for part in data.images.split(batch):
            if version < 2:
                images = normalize(part.flip(3) if version else part)
            else:
                images = random_crops(part, min_scale, generator)
            with torch.autocast(part.device.type, torch.bfloat16, enabled=part.is_cuda and version >= 2):
                parts.append(model.encode(images).to(dtype))
        rows.append(torch.cat(parts))
    return CodeSet(torch.stack(rows), data.labels, data.classes)
