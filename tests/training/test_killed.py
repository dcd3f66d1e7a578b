"""Killed where it hurts: while a file is written, before and behind its taking its place, with the
lock of a folder held. The same command goes on, and nothing is lost or left lying about.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aim.checkpoint import save_tokenizer
from aim.models.vq.model import VQ
from aim.training.data.codes import CodeSet
from aim.training.data.shards import check
from tests.launching import POINTS, run, start

pytest.importorskip("accelerate")

SETTINGS = (
    "model.d_model=32 model.n_layer=2 model.num_groups=2 model.vocab_size=64 model.num_tokens=16 "
    "model.d_state=16 model.headdim=16 model.token_drop=0.2 compile=false seconds=0 batch=8 "
    "steps=12 save_every=0 keep_every=5"
).split()


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    make = torch.Generator().manual_seed(0)
    path = tmp_path / "codes.safetensors"
    numbers = torch.randint(0, 64, (2, 24, 16), generator=make, dtype=torch.int16)
    CodeSet(numbers, torch.arange(24) % 3, (1, 207, 281)).save(path)
    return path


def command(codes: Path, out: Path) -> list[object]:
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    plain = ["--device", "cpu", "--tracker", "none"]
    return ["train", "prior", "--codes", codes, "--out", out, *plain, *sets]


def killed(arguments: Sequence[object], folder: Path, point: str, number: int) -> None:
    process = start(arguments, folder / "said", dies=(point, number))
    process.join(120)
    assert process.exitcode == -9, (folder / "said.err").read_text()


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.tmp")]


def test_a_run(codes: Path, tmp_path: Path) -> None:
    """At every point, of states, models and config.json; it ends as one that was never killed."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    run(command(codes, whole))
    left = 0
    for point, number in zip(POINTS, (2, 3, 5, 6, 1), strict=True):
        killed(command(codes, out), tmp_path, point, number)
        left += len(unfinished(out))
        if (out / "model.safetensors").exists():
            load_file(out / "model.safetensors")
    assert left >= 3, "there was something to sweep"
    run(command(codes, out))
    assert not unfinished(out)
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in out.iterdir())
    for name in (name for name in names if name.endswith(".safetensors")):
        one, other = load_file(out / name), load_file(whole / name)
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_an_export(codes: Path, tmp_path: Path) -> None:
    """What was there before stays, whole, until the new one takes its place."""
    out, model = tmp_path / "run", tmp_path / "exported.safetensors"
    run(command(codes, out))
    export = ["train", "export", out, "--out", model]
    run([*export, "--storage", "float32"])
    before = model.read_bytes()
    state = (out / "state.pt").read_bytes()
    for point in ("half of a file", "before it is kept", "before it takes its place"):
        killed(export, tmp_path, point, 1)
        assert model.read_bytes() == before
    killed(export, tmp_path, "behind that", 1)
    after = model.read_bytes()
    assert after != before
    run(export)
    assert model.read_bytes() == after
    assert (out / "state.pt").read_bytes() == state


def test_codes(picture_folder: Path, tiny_vq: VQ, tmp_path: Path) -> None:
    """Shards that are whole are kept, others made again."""
    save_tokenizer(tmp_path / "tokenizer.safetensors", tiny_vq, {})
    tokenize = ["tokenize", picture_folder, "--tokenizer", tmp_path / "tokenizer.safetensors"]
    tokenize += ["--shard-size", 12, "--device", "cpu", "--out"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    run([*tokenize, whole])
    for point, number in (
        ("half of a file", 1),
        ("before it takes its place", 2),
        ("behind that", 2),
    ):
        killed([*tokenize, out], tmp_path, point, number)
    assert len(list(out.glob("*.safetensors"))) == 3
    assert "12 now" in run([*tokenize, out])
    check(out)
    assert torch.equal(CodeSet.load(out).codes, CodeSet.load(whole).codes)
    assert not unfinished(out)
