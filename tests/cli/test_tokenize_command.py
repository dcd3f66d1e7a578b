"""``python -m aim tokenize`` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from aim.checkpoint import save_tokenizer
from aim.checkpoint.weights import read_metadata
from aim.models.vq.model import VQ
from aim.training.data.codes import CodeSet, read_file
from aim.training.data.images import load_images, normalize
from tests.cli.runner import Cli


@pytest.fixture
def folder(tmp_path: Path, tiny_vq: VQ, smooth_images: Callable[..., torch.Tensor]) -> Path:
    """21 images of two classes of one's own, one of them damaged, and a tokenizer."""
    for i, pixels in enumerate(smooth_images(21)):
        path = tmp_path / "images" / ("cats", "dogs")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    (tmp_path / "images" / "dogs" / "07.png").write_bytes(b"hello")
    save_tokenizer(tmp_path / "vq.safetensors", tiny_vq, {}, torch.float32)
    return tmp_path


def command(folder: Path, out: str, *more: str) -> list[str]:
    paths = [str(folder / "images"), "--out", str(folder / out)]
    paths += ["--tokenizer", str(folder / "vq.safetensors")]
    return ["tokenize", *paths, "--device", "cpu", "--shard-size", "6", "--batch", "4", *more]


def launched(arguments: list[str], processes: int) -> tuple[str, str]:
    """What the command prints in processes of its own."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launch = [sys.executable, *(several if processes > 1 else []), "-m", "aim", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(launch, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_one_and_two_processes_write_the_same_codes(folder: Path, tiny_vq: VQ) -> None:
    out, err = launched(command(folder, "one", "--versions", "random:4", "--check"), 1)
    assert (
        "20 images in" in out
        and "20 now, 1 could not be read" in out
        and "all codes are there" in out
    )
    assert "checked 20 images in 4 files" in out
    assert "dogs/07.png cannot be read as an image" in err
    out, _ = launched(command(folder, "two", "--versions", "random:4"), 2)
    assert "process 0: " in out and "process 1: " in out and "all codes are there" in out
    one, two = ({path.name: path for path in (folder / name).iterdir()} for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert len(one) == 5
    for name in one.keys() - {"codes.json"}:
        (ours, about), (theirs, also) = read_file(one[name]), read_file(two[name])
        assert torch.equal(ours.codes, theirs.codes) and torch.equal(ours.labels, theirs.labels)
        assert about == also
    assert one["codes.json"].read_bytes() == two["codes.json"].read_bytes()
    index = json.loads(one["codes.json"].read_text())
    assert (index["images"], index["skipped"]) == (20, 1)
    found, images = CodeSet.load(folder / "one"), load_images([folder / "images"], 16)
    assert found.names == ("cats", "dogs")
    assert torch.equal(found.labels, images.labels)
    assert torch.equal(found.codes[0].long(), tiny_vq.encode(normalize(images.images)))
    assert torch.equal(found.codes[1].long(), tiny_vq.encode(normalize(images.images.flip(3))))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_what_is_there_is_kept_and_classes_may_be_those_of_others(folder: Path, cli: Cli) -> None:
    assert cli(*command(folder, "codes")) == 0
    (folder / "codes" / "codes-00002.safetensors").unlink()
    (folder / "codes" / "codes.json").unlink()
    assert cli(*command(folder, "codes")) == 0
    assert "20 images in" in cli.out and ", 5 now," in cli.out
    (folder / "images" / "cats").rename(folder / "cats")
    like = ["--like", str(folder / "codes"), "--versions", "plain"]
    assert cli(*command(folder, "val", *like)) == 0
    assert CodeSet.load(folder / "val").labels.unique().tolist() == [1]
    assert CodeSet.load(folder / "val").names == ("cats", "dogs")


def test_errors_are_one_line(folder: Path, cli: Cli) -> None:
    assert cli(*command(folder, "codes", "--versions", "many")) == 2
    assert cli.err.startswith("error: versions is 'many'; it must be plain, flip, ten-crop")
    assert cli.err.count("\n") == 1


def test_a_damaged_tokenizer_is_told_as_such(folder: Path, cli: Cli) -> None:
    path = folder / "vq.safetensors"
    weights = load_file(path)
    weights.pop("quant_conv.bias")
    save_file(weights, path, read_metadata(path))
    for message in (
        "does not fit its configuration: tensor quant_conv.bias missing",
        "cannot be read as a safetensors file",
    ):
        assert cli(*command(folder, "codes")) == 2
        assert cli.err.startswith(f"error: {path} {message}") and cli.err.count("\n") == 1
        path.write_bytes(b"hello")
    assert not (folder / "codes").exists()
