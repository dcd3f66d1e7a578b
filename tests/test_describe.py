"""What a model says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aim.checkpoint import load_model, save_model, save_tokenizer
from aim.checkpoint.describe import describe
from aim.cli import main
from aim.errors import CheckpointError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ


@pytest.fixture
def files(tmp_path: Path, tiny_model: AiM, tiny_vq: VQ) -> tuple[Path, Path]:
    model, tokenizer = tmp_path / "mine.safetensors", tmp_path / "vq.safetensors"
    save_tokenizer(tokenizer, tiny_vq, {"license": "none"})
    save_model(model, tiny_model, {"tokenizer": tokenizer.name, "data": "squares"})
    return model, tokenizer


def test_a_model_s_sizes_and_versions(files: tuple[Path, Path], tiny_model: AiM) -> None:
    found = describe(files[0])
    config, loaded = tiny_model.config, load_model(files[0])
    assert (found["kind"], found["name"], found["version"]) == ("AiM", "mine", loaded.version)
    assert found["parameters"] == sum(p.numel() for p in tiny_model.parameters())
    assert (found["layers"], found["width"]) == (config.n_layer, config.d_model)
    assert found["classes"] == config.num_classes
    assert found["bytes"] == files[0].stat().st_size
    assert found["about"] == {"tokenizer": "vq.safetensors", "data": "squares"}
    assert found["tokenizer"]["grid"] ** 2 == found["codes"] == config.num_tokens
    own = describe(files[1])
    assert (own.pop("kind"), own.pop("about")) == ("tokenizer", {"license": "none"})
    assert found["tokenizer"] == {k: v for k, v in own.items() if k not in ("file", "bytes")}


def test_the_bundled_one_and_its_opponent() -> None:
    found = [describe(name) for name in ("aim-s", "gpt-s")]
    assert [one["kind"] for one in found] == ["AiM", "Transformer"]
    assert [one["classes_are"] for one in found] == ["ImageNet's"] * 2
    assert found[0]["tokenizer"] == found[1]["tokenizer"]
    assert found[0]["about"]["storage"] == "int8"
    assert (found[0]["tokenizer"]["pixels_in"], found[0]["tokenizer"]["pixels_out"]) == (64, 128)


def test_it_is_told_for_people_and_programs(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["info", str(files[0])])
    table, _, line = capsys.readouterr().out.rstrip().rpartition("\n")
    assert end.value.code == 0
    assert json.loads(line) == json.loads(json.dumps(describe(str(files[0]))))
    assert "tokenizer: codebook" in table and "squares" in table


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="aim-z"):
        describe("aim-z")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        describe(other)
