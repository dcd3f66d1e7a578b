"""``bench --race`` and ``bench --scaling``: what is printed, what is written, what is refused."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import aim.cli.bench as command
from aim.cli import main
from aim.config import MODELS, ModelSpec
from aim.models.vq.model import VQ
from tests.bench.rivals import CONFIGS

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_vq: VQ, tmp_path: Path
) -> Cli:
    """Runs ``bench``: (exit code, standard output, standard error). Two tiny models have a place
    among the named ones.
    """
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
    monkeypatch.setattr(sys.modules["aim.bench.race"], "copy_bandwidth", lambda device: 1e9)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["bench", *map(str, arguments)])
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


class TestRace:
    def test_table_ratios_and_a_line_of_json(self, cli: Cli, tmp_path: Path) -> None:
        code, out, err = cli(
            "--race",
            "--random-weights",
            "--class",
            207,
            "--batch",
            2,
            "--csv",
            "out.csv",
            "--json",
            "out.json",
        )
        assert (code, err) == (0, "")
        *text, line = out.splitlines()
        found = json.loads(line)
        assert [racer["name"] for racer in found["racers"]] == ["aim-tiny", "gpt-tiny"]
        assert [racer["backend"] for racer in found["racers"]] == ["eager", "eager"]
        assert (found["label"], found["batch"], found["laps"], found["title"]) == (
            207,
            2,
            5,
            "golden retriever (207)",
        )
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
        _, out, _ = cli(
            "--race",
            "--random-weights",
            "--model",
            "gpt-tiny",
            "--against",
            "gpt-tiny",
            "--laps",
            6,
        )
        found = json.loads(out.splitlines()[-1])
        assert [racer["name"] for racer in found["racers"]] == ["gpt-tiny", "gpt-tiny"]
        assert [len(racer["laps"]) for racer in found["racers"]] == [6, 6]

    @pytest.mark.parametrize("holds", [True, False])
    def test_gates_decide_how_it_ends(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, holds: bool
    ) -> None:
        monkeypatch.setattr(command, "gates", lambda result: [("one", True), ("another", holds)])
        code, out, _ = cli("--race", "--random-weights", "--gates")
        assert code == (0 if holds else 1)
        assert f"ok: one\n{'ok' if holds else 'missed'}: another\n" in out
        assert cli("--race", "--random-weights")[0] == 0


class TestScaling:
    def test_table_verdicts_and_a_line_of_json(self, cli: Cli, tmp_path: Path) -> None:
        code, out, err = cli(
            "--scaling",
            "--tokens",
            "16,64",
            "--batch",
            "1,2",
            "--seconds",
            3,
            "--csv",
            "out.csv",
            "--json",
            "out.json",
        )
        assert (code, err) == (0, "")
        *text, line = out.splitlines()
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--race", "--scaling"], "--race, --scaling and --page are different measurements"),
        (["--page", "--race"], "--race, --scaling and --page are different measurements"),
        (["--csv", "out.csv"], "--csv out.csv goes with --race or --scaling"),
        (["--race", "--batch", "1,2"], "batch is '1,2'; a race takes one"),
        (
            ["--race", "--csv", "nowhere/out.csv"],
            "cannot write nowhere/out.csv: there is no folder",
        ),
        (
            ["--race", "--model", "folder"],
            "nothing is said of whom 'folder' is measured against; name a model with --against",
        ),
        (["--race", "--random-weights", "--against", "gpt-x"], "no model is called 'gpt-x'"),
        (
            ["--race", "--random-weights", "--class", "208"],
            "this model does not know Labrador retriever (208)",
        ),
        (["--scaling", "--tokens", "16,x"], "tokens is '16,x'"),
        (["--scaling", "--tokens", "17"], "the number of codes is 17"),
    ],
)
def test_bad_input_is_told_in_one_line(cli: Cli, arguments: list[str], said: str) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {said}")


def test_too_few_laps(cli: Cli) -> None:
    assert cli("--race", "--laps", 4)[0] == 2
