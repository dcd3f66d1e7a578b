"""The commands of docs/training.md and of README's Train block, each as it stands there but
smaller, one after another in one folder: what a newcomer types works, and makes models that load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from documented import at, commands, write_images
from torch import Tensor
from typer.testing import CliRunner

import aim
from aim.checkpoint import save_model, save_tokenizer
from aim.checkpoint.weights import write
from aim.cli import app
from aim.config import VQConfig
from aim.evaluation.images import write_npz
from aim.models.vq.model import VQ
from aim.training.classifier import ResNet
from tests.tiny import random_model

pytest.importorskip("accelerate")

NETWORK = VQConfig(
    image_size=32, codebook_size=64, z_channels=32, ch=32, ch_mult=(1, 1, 1), num_res_blocks=1
)  # 8x8 codes
STAGE1 = "codebook_size=64 z_channels=32 ch=32 ch_mult=[1,1,1] num_res_blocks=1"
STAGE2 = "vocab_size=64 num_tokens=64 d_model=64 n_layer=2 num_groups=2 d_state=16 headdim=32"
SHORT = "seconds=0 steps=2 batch=6 compile=false"
# not of this package, or for machines that a test has not
ELSEWHERE = re.compile(r"(?!python -m aim )|.*srun ")


def smaller(words: list[str], judge: str) -> list[str]:
    """The arguments of ``python -m aim`` with small settings, on the CPU; what would be fetched is
    in a file.
    """
    line = " ".join(words)
    if "..." in words:  # of the command before it
        some = (
            "--codes codes/train --val codes/val --tokenizer runs/tokenizer/vq.safetensors "
            "--config aim-b --out runs/other"
        )
        words[words.index("...") : words.index("...") + 1] = some.split()
    for option, word in zip(words, list(words[1:]), strict=False):
        at = words.index(word)
        if option in ("--init", "--tokenizer", "--model") and word in ("aim-b", "gpt-xl-384"):
            words[at] = f"hub/{word}.safetensors"
        if option in ("--last", "--count"):
            words[at] = "6"
        if option == "--size":
            words[at] = "32"
        if option == "--preset":  # the paper has none for a model of this size
            words[at] = "shipped"
    words = [word.replace("image_size=384", "image_size=48") for word in words]
    more: list[str] = []
    if line.startswith("train tokenizer"):
        size = "" if "image_size" in line else " image_size=32"
        more = [*SHORT.split(), *(f"model.{s}" for s in f"{STAGE1}{size}".split())]
        more += ["loss_network_seconds=0.2"]
    elif line.startswith("train prior"):
        more = SHORT.split()
        more += [] if "--init" in words else [f"model.{setting}" for setting in STAGE2.split()]
    elif line.startswith("train judge"):
        more = ["seconds=0.5", "batch=6"]
    words += [word for setting in more for word in ("--set", setting)]
    if line.startswith(("train tokenizer", "train prior")):
        words += ["--tracker", "none"]
    if line.startswith("evaluate") and "tokenizer" not in words[:2]:
        words += [] if "--count" in words else ["--count", "6"]
        words += [] if "--features" in words else ["--features", judge]
    return [*words, "--device", "cpu"]


def run(line: str, judge: str) -> str:
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "aim"], line
    done = CliRunner().invoke(app, smaller(words[3:], judge), catch_exceptions=False)
    assert done.exit_code == 0, f"{line}: {done.output}"
    return done.output


@pytest.fixture
def folder(tmp_path: Path, smooth_images: Callable[..., Tensor]) -> Path:
    """Images, and what the commands name besides."""
    sets = {"images/train": (6, 48), "images/val": (3, 48), "my-pictures": (4, 40)}
    write_images(tmp_path, smooth_images, {**sets, "photographs": (2, 40)})
    for name in ("photographs", "tiny-val", "mini-val"):
        source = "photographs" if name == "photographs" else "images/val"
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / source)
    torch.manual_seed(0)
    for name in ("checkpoints/aim-s", "hub/aim-b", "runs/new/model", "hub/gpt-xl-384"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        model = random_model(num_tokens=64, num_classes=3, classes=(1, 207, 285))
        levels = (1, 1, 1, 1) if "384" in name else ()
        tokenizer = VQ(dataclasses.replace(NETWORK, decoder_ch_mult=levels)).eval()
        beside = f"{Path(name).name}-vq.safetensors"
        save_tokenizer((tmp_path / name).with_name(beside), tokenizer, {})
        save_model(tmp_path / f"{name}.safetensors", model, {"tokenizer": beside})
    write(tmp_path / "judge.safetensors", ResNet(3, (16, 16, 16, 16)).state_dict(), {"size": "32"})
    pixels = smooth_images(12, size=32).permute(0, 2, 3, 1).numpy()
    rows = np.arange(12) % 3
    write_npz(tmp_path / "VIRTUAL_imagenet256_labeled.npz", pixels, rows, 32)
    return tmp_path


def test_docs(folder: Path, lpips_file: Path) -> None:
    (folder / "lpips_squeeze.safetensors").write_bytes(lpips_file.read_bytes())
    printed = done(folder, commands("docs/training.md"))
    assert len(printed) >= 15
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run_folder, size in (("aim-b", 32), ("other", 32), ("mine", 32), ("aim-b-384", 48)):
            path = f"runs/{run_folder}/model.safetensors"
            with contextlib.closing(aim.load(path, "cpu", "float32")) as pipe:
                assert pipe.generate("goldfish")[0].size == (size, size)


def test_readme(folder: Path) -> None:
    printed = done(folder, commands("README.md", "Train"))
    assert len(printed) == 4
    model = folder / "runs/aim-b/model.safetensors"
    with contextlib.closing(aim.load(model, "cpu", "float32")) as pipe:
        assert pipe.model.config.classes == (1, 207, 285)


def done(folder: Path, lines: list[str]) -> dict[str, str]:
    """What each of these commands printed."""
    judge = str(folder / "judge.safetensors")
    with at(folder) as patch:
        patch.setenv("AIM_CHECKPOINTS", str(folder / "checkpoints"))
        return {line: run(line, judge) for line in lines if not ELSEWHERE.match(line)}
