"""Images to codes, and codes to a file and back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aim.errors import CheckpointError, InvalidInput
from aim.models.vq.model import VQ
from aim.training.data.codes import CodeSet, tokenize
from aim.training.data.images import ImageSet, normalize


def test_versions(tiny_vq: VQ, smooth: ImageSet) -> None:
    made = tokenize(tiny_vq, smooth, 4, batch=24)
    assert made.codes.shape == (4, 64, 16)
    assert made.codes.dtype == torch.int16
    assert torch.equal(made.labels, smooth.labels)
    assert made.classes == smooth.classes
    images = normalize(smooth.images)
    assert torch.equal(
        made.codes[0].long(), torch.cat([tiny_vq.encode(part) for part in images.split(24)])
    )
    assert torch.equal(
        made.codes[1].long(), torch.cat([tiny_vq.encode(part) for part in images.flip(3).split(24)])
    )
    assert not torch.equal(made.codes[0], made.codes[1])
    for i in (2, 3):
        assert all(not torch.equal(made.codes[i], made.codes[j]) for j in range(i))


def test_crops_depend_on_the_seed_alone(tiny_vq: VQ, smooth: ImageSet) -> None:
    data = ImageSet(smooth.images[:8], smooth.labels[:8], smooth.classes)
    first, same, other = (tokenize(tiny_vq, data, 3, seed=seed).codes for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert torch.equal(first[:2], other[:2])
    assert not torch.equal(first[2], other[2])


@pytest.mark.parametrize(
    ("size", "dtype"), [(2**15, torch.int16), (2**15 + 1, torch.int32), (65_536, torch.int32)]
)
def test_large_codes_do_not_wrap(
    smooth: ImageSet, size: int, dtype: torch.dtype, out: Path
) -> None:
    model: Any = SimpleNamespace(
        config=SimpleNamespace(codebook_size=size),
        encode=lambda images: torch.full((len(images), 2), size - 1),
    )
    made = tokenize(model, smooth, 1)
    assert made.codes.dtype == dtype
    assert (made.codes.long() == size - 1).all()
    made.save(out)
    assert torch.equal(CodeSet.load(out).codes, made.codes)


@pytest.fixture
def codes() -> CodeSet:
    return CodeSet(
        torch.arange(24, dtype=torch.int16).view(2, 3, 4), torch.tensor([1, 0, 1]), (1, 207)
    )


def test_save_and_load(codes: CodeSet, out: Path) -> None:
    codes.save(out)
    again = CodeSet.load(out)
    assert torch.equal(again.codes, codes.codes)
    assert again.codes.dtype == torch.int16
    assert torch.equal(again.labels, codes.labels)
    assert again.classes == codes.classes
    assert CodeSet.load(out, "meta").codes.is_meta


def test_foreign_files_are_refused(codes: CodeSet, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "aim"}):
        save_file({"codes": codes.codes}, path, metadata)
        with pytest.raises(
            InvalidInput, match=r"other\.safetensors is not a file of codes; make one with"
        ):
            CodeSet.load(path)
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        CodeSet.load(path)
    with pytest.raises(CheckpointError, match="there is no file"):
        CodeSet.load(tmp_path / "absent")
