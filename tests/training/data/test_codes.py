"""Codes to a file and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aim.errors import CheckpointError, InvalidInput
from aim.training.data.codes import CodeSet, code_dtype


@pytest.mark.parametrize(
    ("size", "dtype"), [(2**15, torch.int16), (2**15 + 1, torch.int32), (65_536, torch.int32)]
)
def test_large_codes_do_not_wrap(size: int, dtype: torch.dtype, out: Path) -> None:
    assert code_dtype(size) == dtype
    codes = torch.full((1, 64, 2), size - 1).to(code_dtype(size))
    CodeSet(codes, torch.arange(64) % 2, (1, 207)).save(out)
    assert (CodeSet.load(out).codes.long() == size - 1).all()


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
