"""The bundled models' whole run, in small: from image files to checkpoints, then their figures and
their sheets.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import aim
from aim.checkpoint import load_model
from aim.config import MODELS, AiMConfig, GPTConfig, ModelSpec, SamplingParams, VQConfig
from aim.errors import AimError, InvalidInput
from aim.evaluation import report
from aim.training import bundled
from aim.training.classifier import VGG, ResNet, accuracy
from aim.training.data.images import load_images

CLASSES = {"n01443537": 1, "n02099601": 207, "n02124075": 285}
TINY = ModelSpec(
    "aim-s",
    AiMConfig(
        64, 2, vocab_size=64, num_classes=202, num_tokens=16, num_groups=2, d_state=16, headdim=32
    ),
    VQConfig(
        image_size=16, codebook_size=64, z_channels=32, ch=32, ch_mult=(1, 1, 1), num_res_blocks=1
    ),
    "bundled",
)
RIVAL = replace(
    TINY,
    name="gpt-s",
    config=GPTConfig(32, 2, 2, vocab_size=64, num_classes=202, num_tokens=16, multiple_of=16),
)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, smooth_images: Callable[..., Tensor]
) -> Iterator[Path]:
    """Everything that the commands of both programs leave behind, under ``run`` and
    ``checkpoints``, and what they printed.
    """
    folder = tmp_path_factory.mktemp("bundled")
    for name, count in (("train", 4), ("val", 2)):
        for row, wnid in enumerate(CLASSES):
            (folder / name / wnid).mkdir(parents=True)
            for i, pixels in enumerate(smooth_images(count, size=20, seed=row)):
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(
                    folder / name / wnid / f"{i}.JPEG"
                )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "aim-s", TINY)
        patch.setitem(MODELS, "gpt-s", RIVAL)
        patch.setattr(bundled, "device", lambda: torch.device("cpu"))
        patch.setattr(report, "device", lambda: torch.device("cpu"))
        patch.setattr(report, "pick_dtype", lambda *_: torch.float32)
        patch.setattr(report, "SHEET_CLASSES", (207, 1))
        patch.setattr(torch.backends.cudnn, "benchmark", False)  # the program sets it
        yield folder


def call(program: object, folder: Path, arguments: str) -> str:
    runner = CliRunner()
    words = arguments.format(
        images=f"--data {folder}/train --val {folder}/val",
        data=f"--data {folder}/train",
        val=f"--val {folder}/val",
        out=f"--out {folder}/run",
        to=f"{folder}/checkpoints",
        model=f"--model {folder}/checkpoints/aim-s.safetensors",
        rival=f"--model {folder}/checkpoints/gpt-s.safetensors",
    )
    result = runner.invoke(program, words.split(), catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, str]:
    """What the stages of the training printed."""
    stages = {
        "loss-network": "{images} {out} --seconds 0.2 --batch 6",
        "tokenizer": "{images} {out} --seconds 0.2 --batch 6 --no-compile",
        "codes": "{images} {out} --versions 3",
        "prior": "{out} --seconds 0.2 --batch 6 --no-compile",
        "prior --model gpt-s": "{out} --seconds 0.2 --batch 6 --no-compile --dropout 0.2",
        "pack": "{out} --to {to} --cfg-scale 2.5 --top-k 50",
    }
    return {
        name: call(bundled.app, folder, f"{name} {arguments}") for name, arguments in stages.items()
    }


def figure(text: str, before: str) -> float:
    found = re.search(rf"{re.escape(before)} ([\d.]+)", text)
    assert found, text
    return float(found[1])


class TestTraining:
    def test_images_are_decoded_once(self, folder: Path, trained: dict[str, str]) -> None:
        assert "12 training and 6 validation images of 3 classes" in trained["loss-network"]
        kept = load_file(folder / "run" / "images.safetensors")
        assert kept["train.images"].shape == (12, 3, 16, 16), "the size that the tokenizer works at"
        assert kept["val.labels"].tolist() == [0, 0, 1, 1, 2, 2]
        assert kept["classes"].tolist() == [1, 207, 285]

    def test_loss_network(self, folder: Path, trained: dict[str, str]) -> None:
        assert 0 <= figure(trained["loss-network"], "top-1") <= 1
        network = bundled.read_classifier(VGG, folder / "run" / bundled.LOSS_NETWORK, 3)
        assert not network.training
        assert network.head.out_features == 3

    def test_tokenizer(self, folder: Path, trained: dict[str, str]) -> None:
        assert figure(trained["tokenizer"], "PSNR") > 5
        assert 0 < figure(trained["tokenizer"], "codes used") <= 1
        assert 1 <= figure(trained["tokenizer"], "perplexity") <= 64
        assert (folder / "run" / "tokenizer" / "state.pt").exists()

    def test_codes(self, folder: Path, trained: dict[str, str]) -> None:
        for name, shape in (("codes", (3, 12, 16)), ("codes_val", (1, 6, 16))):
            assert bundled.CodeSet.load(folder / "run" / f"{name}.safetensors").codes.shape == shape

    @pytest.mark.parametrize(
        ("stage", "name"), [("prior", "aim-s"), ("prior --model gpt-s", "gpt-s")]
    )
    def test_prior(self, folder: Path, trained: dict[str, str], stage: str, name: str) -> None:
        assert figure(trained[stage], f"{name}: validation") < 6
        lines = (folder / "run" / name / "log.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["val"] > 0

    def test_a_prior_that_is_not_bundled(self, folder: Path, trained: dict[str, str]) -> None:
        with pytest.raises(InvalidInput, match="model is 'aim-b'; it must be one of aim-s, gpt-s"):
            call(bundled.app, folder, "prior {out} --model aim-b")

    def test_a_finished_stage_is_not_trained_again(
        self, folder: Path, trained: dict[str, str]
    ) -> None:
        again = call(bundled.app, folder, "prior {out} --seconds 0.2 --batch 6 --no-compile")
        assert "step" not in again
        assert again == trained["prior"].splitlines()[-1] + "\n"

    @pytest.mark.parametrize("spec", [TINY, RIVAL], ids=lambda spec: spec.name)
    def test_pack_writes_what_the_page_loads(
        self, folder: Path, trained: dict[str, str], spec: ModelSpec
    ) -> None:
        path = folder / "checkpoints" / f"{spec.name}.safetensors"
        loaded = load_model(str(path), torch.device("cpu"), torch.float32)
        assert loaded.model.config == replace(
            spec.config,
            num_classes=3,
            classes=(1, 207, 285),
            sampling=SamplingParams(cfg_scale=2.5, top_k=50),
        )
        assert loaded.tokenizer.config == TINY.tokenizer
        assert f"{spec.name} {loaded.version}" in trained["pack"]
        stored = load_file(folder / "run" / path.name)
        assert all(
            torch.equal(tensor, stored[name]) for name, tensor in loaded.model.state_dict().items()
        ), "rounded before it was judged"
        pipe = aim.load(path, "cpu", "float32")
        assert pipe.generate("goldfish")[0].size == (16, 16)
        pipe.close()

    @pytest.mark.parametrize(
        "arguments",
        ["prior {out} --batch 0", "prior {out} --seconds 0", "codes {images} {out} --versions 0"],
    )
    def test_values_out_of_range(self, folder: Path, arguments: str) -> None:
        with pytest.raises(AssertionError, match="Invalid value"):
            call(bundled.app, folder, arguments)


class TestReport:
    def test_judge_and_report(self, folder: Path, trained: dict[str, str]) -> None:
        printed = call(report.app, folder, "judge {images} {out} --seconds 0.2 --batch 6")
        assert 0 <= figure(printed, "top-1") <= 1
        figures = json.loads(
            call(report.app, folder, "report {val} {out} {model} --count 7 --batch 4")
        )
        held = load_images([folder / "val"], 16)
        on_real = accuracy(
            bundled.read_classifier(ResNet, folder / "run" / bundled.JUDGE, 3),
            held.images,
            held.labels,
        )
        assert figures["judge_on_real"] == pytest.approx(on_real, abs=1e-4)
        assert (figures["cfg_scale"], figures["top_k"], figures["count"]) == (2.5, 50, 7)
        assert figures["judge_on_samples"] in [round(i / 7, 4) for i in range(8)]
        assert 0 <= figures["judge_on_reconstructions"] <= 1
        assert figures["psnr"] == pytest.approx(figure(trained["tokenizer"], "PSNR"), abs=0.01)
        assert torch.is_grad_enabled(), "training goes on in the same process"

    def test_sweep_tries_every_combination(self, folder: Path, trained: dict[str, str]) -> None:
        printed = call(
            report.app,
            folder,
            "sweep {out} {model} --count 4 --cfg-scale 1,3.5 --temperature 0.9 --top-k 0,5 --top-p "
            "0.95",
        )
        settings = [line.partition(":")[0] for line in printed.splitlines()]
        assert settings == [
            f"guidance {c}, temperature 0.9{k}, top-p 0.95"
            for c in ("1", "3.5")
            for k in ("", ", top-k 5")
        ]
        assert all(0 <= figure(line, "0.95:") <= 1 for line in printed.splitlines())

    @pytest.mark.parametrize("name", ["model", "rival"])
    def test_sheet(self, folder: Path, trained: dict[str, str], name: str) -> None:
        call(report.app, folder, f"sheet --to {{to}}/sheet.png {{{name}}} --scale 2")
        sheet = np.asarray(Image.open(folder / "checkpoints" / "sheet.png"))
        assert sheet.shape[1] == 8 * (32 + 4) + 4
        file = {"model": "aim-s.safetensors", "rival": "gpt-s.safetensors"}[name]
        pipe = aim.load(folder / "checkpoints" / file, "cpu", "float32")
        first = np.asarray(pipe.generate(207, seed=0)[0]).repeat(2, 0).repeat(2, 1)
        pipe.close()
        assert np.abs(sheet[4:36, 4:36].astype(int) - first).max() <= 1, (
            "row 0 is the first class, seeds from 0"
        )

    def test_a_class_on_the_sheet_that_the_model_does_not_know(
        self, folder: Path, trained: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report, "SHEET_CLASSES", (1, 301))
        with pytest.raises(InvalidInput, match=r"does not know ladybug \(301\)"):
            call(report.app, folder, "sheet --to {to}/sheet.png {model}")

    def test_curves(
        self, folder: Path, trained: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(AimError, match="pip install matplotlib"):
            call(report.app, folder, "curves {out} --to {to}/curves.png")
        monkeypatch.undo()
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        call(report.app, folder, "curves {out} --to {to}/curves.png")
        assert Image.open(folder / "checkpoints" / "curves.png").width > 500
