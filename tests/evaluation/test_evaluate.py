"""An evaluation from end to end: figures, references and their cache, presets, and the command on
one and on two processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from eyes import Eyes, pixels
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

import aim
from aim.cli.evaluate import evaluate as command
from aim.config import MODELS, SamplingParams
from aim.device import own_device
from aim.errors import AimError, InvalidInput
from aim.evaluation.features import ClassifierFeatures
from aim.evaluation.metrics import frechet_distance, precision_recall
from aim.evaluation.observe import observe
from aim.evaluation.run import NAMES, as_table, evaluate, preset
from aim.evaluation.samples import SampleSet
from aim.settings import Settings
from aim.training.classifier import ResNet
from tests import launching
from tests.tiny import TINY, TINY_GPT


class TestEvaluate:
    def test_every_figure(self, make_set: Callable[..., SampleSet], folder: Path) -> None:
        images, eyes = make_set(), Eyes()
        said: list[str] = []
        result = evaluate(images, [eyes], [folder], say=said.append)
        assert result is not None
        drawn = torch.cat(list(images.images(5)))
        real = torch.from_numpy(
            np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])
        ).permute(0, 3, 1, 2)
        ours, theirs = (observe(Eyes(), [batch]) for batch in (drawn, real))
        assert result["fid"] == pytest.approx(
            frechet_distance(ours.statistics, theirs.statistics), rel=1e-6
        )
        assert ours.spatial is not None and theirs.spatial is not None
        assert result["sfid"] == pytest.approx(
            frechet_distance(ours.spatial, theirs.spatial), rel=1e-6
        )
        assert (result["precision"], result["recall"]) == precision_recall(
            theirs.features, ours.features
        )
        assert ours.probabilities is not None
        p = ours.probabilities.double()
        assert result["inception_score"] == pytest.approx(
            (p * (p / p.mean(0)).log()).sum(1).mean().exp().item()
        )
        assert result["asked_class"] == (p.argmax(1) == torch.arange(12) % 5).double().mean().item()
        assert (result["features"], result["reference"], result["reference_images"]) == (
            "eyes",
            str(folder),
            30,
        )
        assert (
            result["model"],
            result["version"],
            result["count"],
            result["seed"],
            result["cfg_scale"],
        ) == (
            *("tiny", "0123456789ab", 12, 5),
            images.pipe.sampling.cfg_scale,
        )
        assert result["check"]["images"] == 12
        assert json.loads((images.folder / "evaluation.json").read_text()) == result
        assert said == ["Reading the reference", "Drawing", "Checking", "Packing", "Measuring"]
        assert sorted(path.name for path in images.folder.iterdir()) == [
            "evaluation.json",
            "png",
            "samples.npz",
            "settings.json",
        ]

    def test_only_the_first_process_measures(self, make_set: Callable[..., SampleSet]) -> None:
        order: list[int] = []
        assert (
            evaluate(
                make_set(),
                rank=1,
                world=2,
                wait=lambda: order.append(len(list((make_set().folder / "png").iterdir()))),
            )
            is None
        )
        assert order == [6]
        result = evaluate(make_set(), [Eyes()], world=2)
        assert result is not None
        assert result["processes"] == 2

    def test_without_a_reference_or_features(self, make_set: Callable[..., SampleSet]) -> None:
        result = evaluate(make_set(), [Eyes()], npz=False)
        assert result is not None
        assert result["inception_score"] >= 1
        assert [result[name] for name in ("fid", "sfid", "precision", "recall", "reference")] == [
            None
        ] * 5
        assert not (make_set().folder / "samples.npz").exists()
        plain = evaluate(make_set())
        assert plain is not None
        assert not set(NAMES) & plain.keys()

    def test_a_reference_needs_features(
        self, make_set: Callable[..., SampleSet], folder: Path
    ) -> None:
        with pytest.raises(
            InvalidInput, match="needs features to be seen by; name them with --features"
        ):
            evaluate(make_set(), [], [folder])

    def test_nothing_is_drawn_for_a_reference_that_is_not_there(
        self, make_set: Callable[..., SampleSet], tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidInput, match="there is no reference"):
            evaluate(make_set(), [Eyes()], [tmp_path / "absent.npz"])
        assert not (make_set().folder / "png").exists()

    def test_the_set_itself_is_as_near_as_can_be(self, make_set: Callable[..., SampleSet]) -> None:
        images = make_set()
        images.open()
        images.draw()
        result = evaluate(images, [Eyes()], [images.pack()])
        assert result is not None
        assert result["fid"] == pytest.approx(0, abs=1e-6)
        assert (result["precision"], result["recall"]) == (1, 1)

    def test_as_a_table(self, make_set: Callable[..., SampleSet], folder: Path) -> None:
        result = evaluate(make_set(), [Eyes()], [folder])
        assert result is not None
        console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(as_table(result))
        text = console.export_text()
        for part in (
            "tiny 0123456789ab, 12 images, guidance 3",
            f"{result['fid']:.4f}",
            "sFID",
            "IS",
            "2 - 3",
            "4 of 4",
            "by eyes",
        ):
            assert part in text

    @pytest.mark.parametrize(
        ("count", "told", "given"),
        [
            (1, "1 images are too few for FID, KID, precision, recall", {"asked_class"}),
            (3, "3 images are too few for precision, recall", {"fid", "kid", "asked_class"}),
        ],
    )
    def test_too_few_images_for_a_figure_are_told_before_drawing(
        self,
        make_set: Callable[..., SampleSet],
        folder: Path,
        caplog: pytest.LogCaptureFixture,
        count: int,
        told: str,
        given: set[str],
    ) -> None:
        images, drawn = make_set(count=count), []

        def progress(*_: int) -> None:
            drawn.append(told in caplog.text)

        result = evaluate(images, [Eyes()], [folder], progress=progress)
        assert result is not None
        assert all(drawn) and drawn
        names = {"fid", "kid", "precision", "recall", "asked_class"}
        assert {name for name in names if result[name] is not None} == given

    def test_several_networks_see_what_is_drawn_once(
        self, make_set: Callable[..., SampleSet], folder: Path
    ) -> None:
        networks = [Eyes("first"), Eyes("second")]
        result = evaluate(make_set(), networks, [folder])
        assert result is not None
        (second,) = result["further"]
        assert (result["features"], second["features"]) == ("first", "second")
        assert all(result[name] == second[name] for name in NAMES)
        console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(as_table(result))
        lines = console.export_text().splitlines()
        assert any("first" in line and "second" in line for line in lines)
        assert any(line.count(f"{result['fid']:.4f}") == 2 for line in lines)

    def test_some_classes_alone_are_drawn_and_compared(
        self, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        chosen = tiny_pipeline.classes[1:4:2]
        keys = [tiny_pipeline.labels.key(index) for index in tiny_pipeline.classes]
        for i, image in enumerate(pixels(40)):
            path = tmp_path / "real" / keys[i % 5] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        images = SampleSet(tiny_pipeline, tmp_path / "set", 6, batch=4, classes=chosen)
        eyes = Eyes()
        result = evaluate(images, [eyes], [tmp_path / "real"])
        assert result is not None
        assert images.classes() == [*chosen] * 3
        assert (result["classes"], result["reference_images"]) == (list(chosen), 16)
        real = eyes(torch.from_numpy(pixels(40)).permute(0, 3, 1, 2)).probabilities
        assert real is not None
        of_chosen = [i for i in range(40) if i % 5 in (1, 3)]
        right = [
            real[i, 1] < real[i, 3] if i % 5 == 3 else real[i, 1] >= real[i, 3] for i in of_chosen
        ]
        assert result["real_class"] == sum(map(bool, right)) / 16
        again = evaluate(images, [eyes], [tmp_path / "real"])
        assert again is not None
        assert again["real_class"] == result["real_class"], "from the cache"
        with pytest.raises(InvalidInput, match="its classes is"):
            SampleSet(tiny_pipeline, tmp_path / "set", 6, batch=4).open()


class TestPresets:
    def test_shipped_is_the_model_s_own(self) -> None:
        assert preset("shipped", TINY) == (TINY.sampling, 5_000)

    @pytest.mark.parametrize(
        ("name", "guidance"), [("aim-b", 2.0), ("aim-l", 1.75), ("aim-xl", 1.75), ("aim-1b", 1.75)]
    )
    def test_paper(self, name: str, guidance: float) -> None:
        config = dataclasses.replace(MODELS[name].config, sampling=SamplingParams(9.0, 0.5, 7, 0.5))
        assert preset("paper", config) == (SamplingParams(guidance, 1.0, 0, 1.0), 50_000)

    @pytest.mark.parametrize("config", [TINY, TINY_GPT, MODELS["gpt-b"].config])
    def test_paper_knows_no_other_model(self, config: Any) -> None:
        with pytest.raises(
            InvalidInput,
            match=r"the paper has no settings for a model of .*; take --preset shipped",
        ):
            preset("paper", config)

    def test_there_is_no_other(self) -> None:
        with pytest.raises(
            InvalidInput, match="preset is 'best'; it must be one of shipped, paper"
        ):
            preset("best", TINY)


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "judge.safetensors"
    save_file(ResNet(5, (4, 6, 8, 10)).state_dict(), path)
    return path


@pytest.fixture
def arguments(tiny_checkpoint: Path, judge: Path, folder: Path) -> list[str]:
    where = ["--model", str(tiny_checkpoint), "--device", "cpu", "--dtype", "float32"]
    return [
        *where,
        "--features",
        str(judge),
        "--reference",
        str(folder),
        "--batch",
        "4",
        "--count",
        "11",
        "--seed",
        "3",
    ]


class TestCommand:
    def run(self, *arguments: str) -> Any:
        app = typer.Typer()
        app.command()(command)
        return CliRunner().invoke(app, list(arguments))

    def test_prints_a_table_and_one_line_of_json(
        self, arguments: list[str], tmp_path: Path, judge: Path
    ) -> None:
        result = self.run(
            *arguments,
            "--out",
            str(tmp_path / "out"),
            "--top-k",
            "9",
            "--cache",
            str(tmp_path / "kept"),
        )
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout.splitlines()[-1])
        assert found == json.loads((tmp_path / "out" / "evaluation.json").read_text())
        assert (
            found["count"],
            found["top_k"],
            found["cfg_scale"],
            found["seed"],
            found["threads"],
        ) == (11, 9, 3.0, 3, 1)
        assert found["features"] == ClassifierFeatures.load(judge).name
        assert all(found[name] is not None for name in NAMES if name not in ("sfid", "real_class"))
        assert "FID" in result.stdout
        assert len(list((tmp_path / "kept").iterdir())) == 1

    def test_inception_is_the_default_for_a_reference(
        self, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch_fidelity", None)
        at = arguments.index("--features")
        result = self.run(*arguments[:at], *arguments[at + 2 :], "--out", str(tmp_path / "out"))
        assert isinstance(result.exception, AimError)
        assert "Inception features need torch-fidelity" in str(result.exception)

    def test_classes_are_named_or_another_model_s(
        self, arguments: list[str], tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        model = aim.load(tiny_checkpoint, device="cpu")
        some = ["--classes", str(model.classes[3]), "--classes", model.title(model.classes[1])]
        found = []
        for i, asked in enumerate((some, ["--classes", str(tiny_checkpoint)])):
            result = self.run(*arguments, *asked, "--out", str(tmp_path / str(i)))
            assert result.exit_code == 0, result.output
            found.append(json.loads(result.stdout.splitlines()[-1]).get("classes"))
        assert found == [sorted([model.classes[1], model.classes[3]]), None]

    def test_the_paper_s_settings_are_not_for_every_model(
        self, arguments: list[str], tmp_path: Path
    ) -> None:
        result = self.run(*arguments, "--preset", "paper", "--out", str(tmp_path / "out"))
        assert isinstance(result.exception, InvalidInput)
        assert "take --preset shipped" in str(result.exception)
        assert not (tmp_path / "out").exists()

    def test_one_and_two_processes_give_the_same_images_and_figures(
        self, arguments: list[str], tmp_path: Path
    ) -> None:
        found = []
        for count in (1, 2):
            said = launching.run(["evaluate", *arguments, "--out", tmp_path / str(count)], count)
            found += [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        one, two = (
            {path.name: path.read_bytes() for path in (tmp_path / name / "png").iterdir()}
            for name in ("1", "2")
        )
        assert len(one) == 11
        assert one == two
        assert (tmp_path / "1" / "samples.npz").stat().st_size == (
            tmp_path / "2" / "samples.npz"
        ).stat().st_size
        assert [result["processes"] for result in found] == [1, 2]
        assert all(found[0][name] == found[1][name] for name in NAMES)


@pytest.mark.parametrize(
    ("name", "world", "wanted"),
    [
        ("cuda", 2, "cuda:1"),
        ("cuda", 1, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda:0", 2, "cuda:0"),
        ("mps", 2, "mps"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(name: str, world: int, wanted: str) -> None:
    assert own_device(name, Settings(world=world, rank=world - 1, local_rank=world - 1)) == wanted
