"""The commands of the card of the bundled models, each as it stands there but smaller: from image
files to checkpoints that the page loads, and their figures.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import at, commands, write_images
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import aim
from aim.checkpoint import save_tokenizer
from aim.cli import app
from aim.config import SamplingParams, VQConfig
from aim.models.vq.model import VQ

pytest.importorskip("accelerate")

BEFORE = VQConfig(
    image_size=32, codebook_size=32, z_channels=32, ch=32, ch_mult=(1, 1, 1), num_res_blocks=1
)  # what stage 1 starts from
OURS = (
    "image_size=32 codebook_size=64 z_channels=32 ch=32 ch_mult=[1,1,1] "
    "decoder_ch_mult=[1,1,1,1] num_res_blocks=1"
)
CODES = "vocab_size=64 num_tokens=64"
SMALLER = {  # settings that are added to a command of the card
    "train tokenizer": f"{OURS} seconds=0 steps=2 batch=6 compile=false",
    "train prior --config aim-s": f"{CODES} d_model=64 n_layer=2 d_state=16 headdim=32 "
    "seconds=0 steps=2 batch=6 compile=false",
    "train prior --config gpt-s": f"{CODES} d_model=32 n_layer=2 n_head=2 multiple_of=16 "
    "seconds=0 steps=2 batch=6 compile=false",
}
OF_A_NETWORK = re.compile(r"^(image_|codebook_|z_|ch|decoder_|num_|vocab_|d_|n_|head|multiple)")


def smaller(words: list[str]) -> list[str]:
    """The arguments of ``python -m aim`` with small settings, on the CPU."""
    line = " ".join(words)
    for start, settings in SMALLER.items():
        if line.startswith(start):
            for setting in settings.split():
                words += ["--set", f"{'model.' * bool(OF_A_NETWORK.match(setting))}{setting}"]
    if line.startswith(("train tokenizer", "train prior")):
        words += ["--tracker", "none", "--no-sheets"]
    if line.startswith("evaluate"):
        words[words.index("--last" if "--last" in words else "--count") + 1] = "6"
    if line.startswith("sample"):
        words = [word for word in words if not word.isdigit() or int(word) in (1, 207, 285, 8)]
    return [*words, "--device", "cpu"]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    smooth_images: Callable[..., Tensor],
    lpips_file: Path,
) -> tuple[Path, dict[str, str]]:
    """A folder after every command of the card, and what each printed."""
    folder = tmp_path_factory.mktemp("card")
    sets = {"train": (6, 32), "val": (3, 20), "photographs": (2, 70), "train-128": (2, 64)}
    write_images(folder, smooth_images, sets)
    (folder / "checkpoints").mkdir()
    (folder / "lpips_squeeze.safetensors").write_bytes(lpips_file.read_bytes())
    torch.manual_seed(0)
    save_tokenizer(folder / "vq-f4.safetensors", VQ(BEFORE), {})
    with at(folder):
        printed = {line: run(line) for line in commands("checkpoints/README.md")}
    return folder, printed


def run(line: str) -> str:
    words = shlex.split(line)
    if words[0] == "cp":
        Path(words[2]).write_bytes(Path(words[1]).read_bytes())
        return ""
    if words[:3] == ["python", "-m", "aim.ui.record"]:  # see tests/ui/generate/test_recorded.py
        return ""
    assert words[:3] == ["python", "-m", "aim"], line
    if words[3:5] == ["train", "curves"]:  # needs matplotlib, see test_curves
        assert all((Path(run) / "log.jsonl").is_file() for run in words[5:-2])
        return ""
    done = CliRunner().invoke(app, smaller(words[3:]), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ["aim-s", "gpt-s"])
def test_the_page_loads_what_is_made(made: Any, name: str) -> None:
    folder, _ = made
    pipe = aim.load(folder / "checkpoints" / f"{name}.safetensors", "cpu", "float32")
    config = pipe.model.config
    assert config.classes == (1, 207, 285)
    assert (config.vocab_size, config.num_tokens) == (64, 64)
    assert config.sampling == SamplingParams(cfg_scale=4.0), "as the card says"
    assert pipe.generate("goldfish")[0].size == (64, 64)
    pipe.close()


def test_runs_log_the_card_s_figures(made: Any) -> None:
    folder, _ = made
    for run_folder, keys in (
        ("vq", {"psnr", "val_used", "perplexity"}),
        ("aim-s", {"val"}),
        ("gpt-s", {"val"}),
    ):
        lines = (folder / "runs" / run_folder / "log.jsonl").read_text().splitlines()
        assert keys <= json.loads(lines[-1]).keys()


def test_figures_of_samples_and_of_the_tokenizer(made: Any) -> None:
    _, printed = made
    drawn, kept = [
        json.loads(text.strip().splitlines()[-1])
        for line, text in printed.items()
        if " evaluate " in line
    ]
    assert drawn["features"].startswith("mobilenet-v2")
    assert 0 <= drawn["asked_class"] <= 1 and drawn["fid"] is not None
    assert kept["sizes"]["64"]["lpips"] > 0


def test_a_sheet_of_the_page_s_settings(made: Any) -> None:
    folder, _ = made
    [sheet] = (folder / "runs" / "sheet").glob("*sheet*.png")
    assert Image.open(sheet).width > 8 * 64
