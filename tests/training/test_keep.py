"""The averaged model while it trains: which ones are kept, and one made of a state."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from aim.checkpoint import load_model, load_tokenizer, save_tokenizer
from aim.checkpoint.weights import read_metadata, write
from aim.errors import CheckpointError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.training.identity import Identity
from aim.training.keep import Models, export, record
from aim.training.parallel import ALONE
from aim.training.recipe import PriorRecipe
from aim.training.run import Run

Parts = Callable[[], dict[str, nn.Module]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Models]:
    def writes(path: Path, metadata: Mapping[str, str]) -> str:
        write(path, {"w": torch.ones(1)}, metadata)
        return "version"

    return lambda **rules: Models(
        tmp_path / "model.safetensors", writes, PriorRecipe(**rules), ALONE
    )


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.safetensors"))


class TestRules:
    def test_the_latest_alone(self, make: Callable[..., Models], tmp_path: Path) -> None:
        models = make()
        for step in (5, 9):
            assert models.latest(step) == "version"
            models.passed(step)
            models.validated(step, "val", 1.0, False)
        assert names(tmp_path) == ["model"]
        assert read_metadata(tmp_path / "model.safetensors")["step"] == "9"

    def test_the_last_and_every_so_many_steps(
        self, make: Callable[..., Models], tmp_path: Path
    ) -> None:
        models = make(keep_last=2, keep_every=10)
        for step in range(1, 42):
            models.passed(step)
            if step % 7 == 0:
                models.latest(step)
        kept = ["model", *(f"model-{step:07d}" for step in (10, 20, 28, 30, 35, 40))]
        assert names(tmp_path) == kept

    @pytest.mark.parametrize(("higher", "best"), [(False, "2"), (True, "3")])
    def test_the_best(
        self, make: Callable[..., Models], tmp_path: Path, higher: bool, best: str
    ) -> None:
        for step, value in ((1, 5.0), (2, 4.5), (3, 5.5)):
            # a new one each time, as after a resume
            make(keep_best=True).validated(step, "val", value, higher)
        assert read_metadata(tmp_path / "model-best.safetensors")["step"] == best


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_run_after_the_step_saved(
    out: Path, parts: Parts, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    run = Run(out, parts(), seconds=1000)
    saved: list[int] = []
    run.on_save = saved.append
    with run.interruptible():
        assert run.advance()
        os.kill(os.getpid(), number)
        assert not run.advance()
    assert (run.exit_code(), run.step, saved) == (128 + number, 2, [2])
    assert "stopped at step 2, saved in" in capsys.readouterr().err
    assert Run(out, parts(), seconds=1000).step == 2
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_it_at_once(out: Path, parts: Parts) -> None:
    run = Run(out, parts(), seconds=1000)
    with pytest.raises(KeyboardInterrupt), run.interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("nothing happened")


class TestExport:
    def run(self, out: Path, network: AiM | VQ, metadata: Mapping[str, str]) -> dict[str, Any]:
        average = torch.optim.swa_utils.AveragedModel(network)
        identity = Identity.of(PriorRecipe(), network.config, data="")
        identity = identity._replace(network=record(network.config, metadata))
        run = Run(out, {"average": average}, seconds=10, identity=identity)
        run.advance()
        run.save()
        return network.state_dict()

    def test_a_prior_with_its_tokenizer(
        self, out: Path, tiny_model: AiM, tiny_vq: VQ, tmp_path: Path
    ) -> None:
        wanted = self.run(out, tiny_model, {"tokenizer": "vq.safetensors", "license": "mine"})
        save_tokenizer(out / "vq.safetensors", tiny_vq, {}, torch.float32)
        for source, name in ((out, "a"), (out / "copy.pt", "b")):
            if source.suffix:
                shutil.copy(out / "state.pt", source)
            to = tmp_path / name / "made.safetensors"
            version = export(source, to, torch.float32)
            made = load_model(to)
            assert made.version == version
            assert made.model.config == tiny_model.config
            assert all(torch.equal(made.model.state_dict()[k], w) for k, w in wanted.items())
            assert read_metadata(to)["license"] == "mine" and read_metadata(to)["step"] == "1"

    def test_a_tokenizer(self, out: Path, tiny_vq: VQ, tmp_path: Path) -> None:
        wanted = self.run(out, tiny_vq, {})
        export(out, tmp_path / "vq.safetensors", torch.float32)
        made = load_tokenizer(tmp_path / "vq.safetensors").state_dict()
        assert all(torch.equal(made[name], weight) for name, weight in wanted.items())
        export(out, tmp_path / "int8.safetensors", torch.int8)
        assert any(n.endswith(".scale") for n in load_file(tmp_path / "int8.safetensors"))

    def test_where_there_is_nothing_to_make_it_of(
        self, out: Path, parts: Parts, tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidInput, match=r"there is no state.pt in .*the folder of a run"):
            export(tmp_path, tmp_path / "m.safetensors", torch.float32)
        Run(out, parts(), seconds=10).save()
        with pytest.raises(CheckpointError, match="state of an earlier version"):
            export(out, tmp_path / "m.safetensors", torch.float32)
        assert not (tmp_path / "m.safetensors").exists()
