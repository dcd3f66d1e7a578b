"""``python -m aim bench``: what is printed, what is written, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aim.bench import diffusion, race, speed
from aim.bench.machine import Machine
from aim.config import MODELS, ModelSpec
from aim.models.prior import build
from aim.models.vq.model import VQ
from aim.training.pace import product_parameters
from aim.ui import probe
from tests.bench.rivals import CONFIGS
from tests.bench.test_diffusion import DECODER, TRANSFORMER
from tests.cli.runner import Cli


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_vq: VQ, tmp_path: Path
) -> Cli:
    """In an empty folder; two tiny models have a place among the named ones."""
    monkeypatch.chdir(tmp_path)
    for name, config in CONFIGS.items():
        monkeypatch.setitem(MODELS, name, ModelSpec(name, config, tiny_vq.config, "none"))
    for name, value in {
        "AIM_MODEL": "aim-tiny",
        "AIM_DTYPE": "float32",
        "AIM_DEVICE": "cpu",
        "AIM_BACKEND": "eager",
        "AIM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for module in (race, speed):
        monkeypatch.setattr(module, "copy_bandwidth", lambda device: 1e9)
    return Cli(capsys)


def words(line: str) -> list[str]:
    return line.split()


def test_alone_it_says_what_can_be_measured(cli: Cli) -> None:
    cli("bench")
    help_text = cli.out + cli.err  # on which of them depends on Click's version
    assert "Usage: aim bench" in help_text
    for name in ("speed", "ahead", "race", "scaling", "page", "training"):
        assert f"│ {name} " in help_text


class TestSpeed:
    def test_table_then_a_line_of_json(self, cli: Cli, tmp_path: Path) -> None:
        arguments = words("--random-weights --batch 2,1 --repeats 1 --json out.json")
        assert (cli("bench", "speed", *arguments), cli.err) == (0, "")
        *table, line = cli.out.splitlines()
        found = json.loads(line)
        assert [(result["batch"], result["repeats"]) for result in found["batches"]] == [
            (2, 1),
            (1, 1),
        ]
        assert (found["model"], found["version"], found["machine"]["threads"]) == (
            "aim-tiny",
            "random",
            1,
        )
        assert any("images/s" in row for row in table)
        assert (tmp_path / "out.json").read_text(encoding="utf-8") == line + "\n"

    def test_a_file_s_weights(self, cli: Cli, tiny_checkpoint: Path) -> None:
        assert cli("bench", "speed", "--model", tiny_checkpoint, "--repeats", 1) == 0
        assert json.loads(cli.out.splitlines()[-1])["model"] == "tiny"


def test_ahead_prints_codes_a_pass_and_a_line_of_json(cli: Cli, tmp_path: Path) -> None:
    arguments = words("--random-weights --items 4,2 --pictures 1 --json out.json")
    assert (cli("bench", "ahead", *arguments), cli.err) == (0, "")
    *table, line = cli.out.splitlines()
    found = json.loads(line)
    assert {one["items"] for one in found["settled"]} == {2, 4}
    assert any("guidance 6" in row for row in table)
    assert any("goldfish" in one["what"] for one in found["settled"])
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == line + "\n"


class TestRace:
    def test_table_ratios_and_a_line_of_json(self, cli: Cli, tmp_path: Path) -> None:
        arguments = words("--random-weights --class 207 --batch 2 --csv out.csv --json out.json")
        assert (cli("bench", "race", *arguments), cli.err) == (0, "")
        *text, line = cli.out.splitlines()
        found = json.loads(line)
        assert [racer["name"] for racer in found["racers"]] == ["aim-tiny", "gpt-tiny"]
        assert [racer["backend"] for racer in found["racers"]] == ["eager", "eager"]
        assert (found["label"], found["batch"], found["laps"]) == (207, 2, 5)
        assert found["title"] == "golden retriever (207)"
        assert text[-1].startswith("aim-tiny over gpt-tiny: codes ")
        assert any("fraction of its own floor" in row for row in text)
        full = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        times = [lap.pop("code_seconds") for racer in full["racers"] for lap in racer["laps"]]
        assert full == found
        assert [len(some) for some in times] == [16] * 10
        rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
        assert [row["model"] for row in rows] == [
            found["racers"][turn]["name"] for turn in found["order"]
        ]

    def test_the_other_may_be_named(self, cli: Cli) -> None:
        both = words("--random-weights --model gpt-tiny --against gpt-tiny --laps 6")
        assert cli("bench", "race", *both) == 0
        found = json.loads(cli.out.splitlines()[-1])
        assert [racer["name"] for racer in found["racers"]] == ["gpt-tiny", "gpt-tiny"]
        assert [len(racer["laps"]) for racer in found["racers"]] == [6, 6]

    def test_against_diffusion(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("diffusers")
        monkeypatch.setattr(diffusion, "TRANSFORMER", TRANSFORMER)
        monkeypatch.setattr(diffusion, "IMAGE_DECODER", DECODER)
        against = words("--random-weights --class 207 --against gpt-tiny,dit-xl-50,dit-xl-250")
        assert cli("bench", "race", *against) == 0
        racers = json.loads(cli.out.splitlines()[-1])["racers"]
        assert [(racer["name"], racer["family"], racer["passes"]) for racer in racers] == [
            ("aim-tiny", "AiM", 16),
            ("gpt-tiny", "GPT", 16),
            ("dit-xl-50", "DiT", 50),
            ("dit-xl-250", "DiT", 250),
        ]

    def test_another_diffusion_is_refused(self, cli: Cli) -> None:
        assert cli("bench", "race", "--model", "nothing", "--against", "dit-b-50") == 2
        assert "there is no 'dit-b-50'; choose one of dit-xl-50, dit-xl-250" in cli.err

    @pytest.mark.parametrize("holds", [True, False])
    def test_gates_decide_how_it_ends(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, holds: bool
    ) -> None:
        monkeypatch.setattr(race, "gates", lambda result: [("one", True), ("another", holds)])
        assert cli("bench", "race", "--random-weights", "--gates") == (0 if holds else 1)
        assert f"ok: one\n{'ok' if holds else 'missed'}: another\n" in cli.out
        assert cli("bench", "race", "--random-weights") == 0


def test_scaling_prints_a_table_verdicts_and_a_line_of_json(cli: Cli, tmp_path: Path) -> None:
    sizes = words("--tokens 16,64 --batch 1,2 --seconds 3 --csv out.csv --json out.json")
    assert (cli("bench", "scaling", *sizes), cli.err) == (0, "")
    *text, line = cli.out.splitlines()
    found = json.loads(line)
    assert (found["models"], found["tokens"], found["batches"]) == (
        ["aim-tiny", "gpt-tiny"],
        [16, 64],
        [1, 2],
    )
    assert len(found["costs"]) + len(found["missing"]) == 8
    assert [words.partition(":")[0] for words in text[-4:]] == [
        "Batch 1",
        "Batch 2",
        "16 codes an image",
        "64 codes an image",
    ]
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == line + "\n"
    assert len((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()) == 9


def test_page_is_asked_where_the_environment_says(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def answers(*where: str) -> tuple[list[probe.Answers], Machine]:
        asked.append(where)
        found = probe.Answers("/healthz", False, requests=1, median_ms=1, p95_ms=2, most_ms=3)
        return [found], Machine.of(torch.device("cpu"))

    monkeypatch.setattr(probe, "probe", answers)
    assert cli("bench", "page", "--json", "out.json", "--dtype", "bfloat16") == 0
    assert asked == [("aim-tiny", "cpu", "bfloat16", "eager")]
    *table, line = cli.out.splitlines()
    assert any("/healthz" in row for row in table)
    assert json.loads(line)["machine"]["device"] == "cpu"
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == line + "\n"


def test_training_prints_a_table_and_a_line_of_json(cli: Cli, tmp_path: Path) -> None:
    arguments = words("--batch 2,1 --steps 2 --json out.json")
    assert (cli("bench", "training", *arguments), cli.err) == (0, "")
    line: dict[str, Any] = json.loads(cli.out.splitlines()[-1])
    assert [result["batch"] for result in line["training"]] == [2, 1]
    with torch.device("meta"):
        count = product_parameters(build(CONFIGS["aim-tiny"]))
    for result in line["training"]:
        assert (result["model"], result["dtype"]) == ("aim-tiny", "float32")
        speed = result["images_per_second"]
        assert speed == pytest.approx(1e3 * result["batch"] / result["step_ms"], rel=0.02)
        flops = 6 * count * CONFIGS["aim-tiny"].num_tokens * speed
        assert result["tflops"] == pytest.approx(flops / 1e12, rel=0.01)
    assert line["machine"]["pytorch"] == torch.__version__
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == line


RANDOM = "--random-weights"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "speed --batch abc",
            "batch is 'abc'; it must be whole numbers in [1, 4096], separated by commas, as in "
            "1,16,64",
        ),
        ("speed --batch 0", "batch is '0'"),
        ("speed --batch 1,,2", "batch is '1,,2'"),
        ("speed --batch 1,-2", "batch is '1,-2'"),
        ("speed --batch 5000", "batch is '5000'"),
        (
            f"speed --model aim-m {RANDOM}",
            "no model is called 'aim-m', and random weights are for named ones",
        ),
        ("speed --model aim-m", "no model is called 'aim-m'"),
        (f"speed {RANDOM} --backend magic", "backend is 'magic'; it must be one of auto, gpu, cpu"),
        (f"speed {RANDOM} --backend gpu", "backend is 'gpu', but it needs an NVIDIA GPU"),
        ("speed --json nowhere/out.json", "cannot write nowhere/out.json: there is no folder"),
        ("speed --json .", "cannot write .: it is a folder"),
        ("race --csv nowhere/out.csv", "cannot write nowhere/out.csv: there is no folder"),
        (
            "race --model folder",
            "nothing is said of whom 'folder' is measured against; name a model with --against",
        ),
        (f"race {RANDOM} --against gpt-x", "no model is called 'gpt-x'"),
        (f"race {RANDOM} --class 208", "this model does not know Labrador retriever (208)"),
        ("scaling --tokens 16,x", "tokens is '16,x'"),
        ("scaling --tokens 17", "the number of codes is 17"),
        ("scaling --csv .", "cannot write .: it is a folder"),
        ("page --json .", "cannot write .: it is a folder"),
        ("training --model aim-z", "model is 'aim-z'"),
        ("training --batch 0", "batch is '0'"),
        ("training --device gpu", "device is 'gpu'"),
    ],
)
def test_bad_input_is_told_in_one_line(cli: Cli, arguments: str, said: str) -> None:
    assert (cli("bench", *words(arguments)), cli.out) == (2, "")
    assert cli.err.splitlines()[-1].startswith(f"error: {said}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("speed --repeats 0", "--repeats"),
        ("speed --seconds -1", "--seconds"),
        ("race --laps 4", "--laps"),
        ("race --batch 1,2", "--batch"),
        ("race --batch 5000", "--batch"),
        ("training --steps 0", "--steps"),
        # what a measurement would not read is no option of it
        ("speed --csv out.csv", "No such option: --csv"),
        ("speed --against gpt-tiny", "No such option: --against"),
        ("race --tokens 16", "No such option: --tokens"),
        ("scaling --random-weights", "No such option: --random-weights"),
        ("page --batch 2", "No such option: --batch"),
        ("training --backend eager", "No such option: --backend"),
    ],
)
def test_options_are_refused_by_name(cli: Cli, arguments: str, said: str) -> None:
    assert (cli("bench", *words(arguments)), cli.out) == (2, "")
    assert said in cli.err
