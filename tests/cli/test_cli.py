"""The command line, in this process and as one of its own, on a tiny random model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import aim
from aim.images import read
from aim.pipeline import Pipeline
from tests.cli.runner import Cli


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> Cli:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "AIM_MODEL": str(tiny_checkpoint),
        "AIM_DTYPE": "float32",
        "AIM_DEVICE": "cpu",
    }.items():
        monkeypatch.setenv(name, value)
    return Cli(capsys)


def test_version(cli: Cli) -> None:
    assert cli("--version") == 0
    assert cli.out == f"aim {aim.__version__}\n"


def test_help(cli: Cli) -> None:
    assert cli("--help") == 0
    assert "sample" in cli.out
    assert "demo" in cli.out


class TestSample:
    def test_writes_pictures_with_their_parameters(self, cli: Cli, tiny_pipeline: Pipeline) -> None:
        assert (
            cli(
                "sample",
                "goldfish",
                207,
                "--count",
                2,
                "--seed",
                5,
                "--cfg-scale",
                2.5,
                "--top-k",
                9,
            )
            == 0
        )
        names = [
            "tiny-goldfish-1-seed-5",
            "tiny-goldfish-1-seed-6",
            "tiny-golden-retriever-207-seed-7",
            "tiny-golden-retriever-207-seed-8",
        ]
        assert cli.out.splitlines() == [str(Path("samples", f"{name}.png")) for name in names]
        expected = tiny_pipeline.generate([1, 1, 207, 207], seed=5, cfg_scale=2.5, top_k=9)
        for name, image in zip(cli.out.splitlines(), expected, strict=True):
            assert Image.open(name).tobytes() == image.tobytes()
        found = read.read_parameters(cli.out.splitlines()[3])
        assert (
            found["class"],
            found["seed"],
            found["cfg_scale"],
            found["top_k"],
            found["temperature"],
        ) == (207, 8, 2.5, 9, 1.0)

    def test_does_not_overwrite_unless_forced(self, cli: Cli, tmp_path: Path) -> None:
        out = tmp_path / "a" / "b"
        assert cli("sample", "tabby", "--out", out) == 0
        first = Path(cli.out.strip())
        first.write_bytes(b"precious")
        assert cli("sample", "tabby", "--out", out) == 0
        assert cli("sample", "tabby", "--out", out) == 0
        assert sorted(path.name for path in out.iterdir()) == [
            f"tiny-tabby-281-seed-0{tail}.png" for tail in ("-2", "-3", "")
        ]
        assert first.read_bytes() == b"precious"
        assert cli("sample", "tabby", "--out", out, "--force") == 0
        assert Path(cli.out.strip()) == first
        assert read.read_parameters(first)["class"] == 281

    def test_gif_and_sheet(self, cli: Cli) -> None:
        assert cli("sample", 1, 985, "--count", 3, "--gif", "--sheet") == 0
        lines = cli.out.splitlines()
        assert [Path(line).suffix for line in lines] == [".png", ".gif"] * 6 + [".png"]
        gif = Image.open(lines[1])
        assert gif.n_frames == 16  # type: ignore[attr-defined]
        assert gif.size == (256, 256)
        sheet = Image.open(lines[-1])
        assert sheet.width > 3 * 128
        assert read.read_parameters(sheet)["classes"] == [1, 985]

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["goldfisch"], "goldfish (1)"),
            (["tiger shark"], "does not know"),
            (["goldfish", "--temperature", "-1"], "temperature is -1.0"),
            (["goldfish", "--seed", "-3"], "seed is -3"),
            (["goldfish", "--device", "gpu"], "device is 'gpu'"),
            (["goldfish", "--dtype", "float16"], "dtype is 'float16'"),
            (
                ["goldfish", "--backend", "turbo"],
                "backend is 'turbo'; it must be one of auto, gpu, cpu, mamba-ssm, eager",
            ),
            (["goldfish", "--backend", "gpu"], "the device is cpu; take auto or eager"),
            (["goldfish", "--model", "aim-z"], "aim-s"),
            (["goldfish", "--model", "nowhere/"], "nowhere"),
            (["goldfish", "--out", "file/in"], "--out"),
        ],
    )
    def test_bad_input_is_told_in_one_line(
        self, cli: Cli, tmp_path: Path, arguments: list[str], complaint: str
    ) -> None:
        (tmp_path / "file").write_text("not a folder")
        assert cli("sample", *arguments) == 2
        assert cli.out == ""
        assert len(cli.err.splitlines()) == 1
        assert cli.err.startswith("error: ")
        assert complaint in cli.err
        assert not (tmp_path / "samples").exists()

    def test_a_bad_environment_is_told_too(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIM_DEVICE", "toaster")
        assert cli("sample", "goldfish") == 2
        assert cli.err.startswith("error: AIM_DEVICE is 'toaster'")

    def test_usage_errors(self, cli: Cli) -> None:
        assert cli("sample", "goldfish", "--count", 0) == 2
        assert cli("sample") == 2
        assert cli("frobnicate") == 2


def test_demo_hands_everything_to_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple, dict[str, Any]]] = []
    page = ModuleType("aim.ui")
    page.launch = lambda *args, **kwargs: calls.append((args, kwargs))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aim.ui", page)
    monkeypatch.setenv("AIM_MODEL", "aim-b")
    assert cli("demo") == 0
    assert (
        cli(
            "demo",
            "--host",
            "0.0.0.0",
            "--port",
            8000,
            "--share",
            "--mcp",
            "--model",
            "m",
            "--device",
            "cuda:1",
            "--dtype",
            "bfloat16",
            "--backend",
            "eager",
            "--replicas",
            "2-8",
            "--cluster",
            "auto",
        )
        == 0
    )
    assert calls == [
        (
            ("aim-b",),
            {
                "device": "cpu",
                "dtype": "float32",
                "backend": "auto",
                "replicas": (0, 0),
                "cluster": "",
                "host": None,
                "port": None,
                "share": False,
                "mcp": False,
            },
        ),
        (
            ("m",),
            {
                "device": "cuda:1",
                "dtype": "bfloat16",
                "backend": "eager",
                "replicas": (2, 8),
                "cluster": "auto",
                "host": "0.0.0.0",
                "port": 8000,
                "share": True,
                "mcp": True,
            },
        ),
    ]


@pytest.mark.parametrize("command", [["prior"], ["tokenizer", "images"]])
def test_training_is_where_the_environment_says(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("AIM_DEVICE", "cuda:7")
    assert cli("train", *command, "--out", "run") == 2
    assert cli.err == "error: device is 'cuda:7'; it must be auto, cpu or cuda\n"
    assert cli("train", *command, "--out", "run", "--device", "tpu") == 2
    assert cli.err == "error: device is 'tpu'; it must be auto, cpu or cuda\n"


def test_as_a_process_of_its_own(
    run_python: Callable[..., Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done = run_python(
        "-m", "aim", "sample", "goldfish", "--model", str(tiny_checkpoint), "--device", "cpu"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert read.read_parameters(tmp_path / done.stdout.strip())["class_name"] == "goldfish"


def test_help_loads_nothing_heavy(run_python: Callable[..., Any]) -> None:
    code = (
        "import sys\nfrom aim.cli import main\ntry: main(['--version'])\n"
        "except SystemExit: print(sys.modules.keys() & {'torch', 'pydantic', 'gradio'})"
    )
    assert run_python("-c", code).stdout.splitlines() == [f"aim {aim.__version__}", "set()"]


def test_replicas_that_are_no_number(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("demo", "--replicas", "many") == 2
    assert cli.err.startswith("error: --replicas is 'many'; it must be a number from 1 to")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli("evaluate", "--replicas", "2") == 2
    assert "torchrun starts processes that draw, and so does --replicas" in cli.err


def test_pictures_are_saved_smaller(cli: Cli) -> None:
    assert cli("sample", "goldfish", "--size", 8, "--sheet", "--gif") == 0
    picture = Image.open(cli.out.splitlines()[0])
    assert picture.size == (8, 8)
    assert read.read_parameters(picture)["size"] == 8
    assert cli("sample", 207) == 0
    whole = Image.open(cli.out.splitlines()[0])
    assert whole.size == (16, 16) and "size" not in read.read_parameters(whole)


@pytest.mark.parametrize("command", ["sample goldfish", "evaluate --count 2"])
def test_a_size_that_is_not_drawn_is_one_line(cli: Cli, command: str) -> None:
    assert cli(*command.split(), "--size", "32x16") == 2
    assert len(cli.err.splitlines()) == 1
    assert "size is '32x16'; this model draws squares of 16x16 pixels" in cli.err
