"""Models from a hub, served on loopback: fetched, cached, and every way to fail told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aim.checkpoint import export_official, load_model
from aim.checkpoint import hub as hub_module
from aim.checkpoint.hub import fetched
from aim.config import MODELS
from aim.errors import AimError, CheckpointError, HubError
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from tests.golden.weights import fill
from tests.loopback import Hub, nobody_listens, served

ROOT = Path(__file__).resolve().parent.parent
REPO = "someone/tiny-aim"


@pytest.fixture
def hub(
    tmp_path: Path, make_model: Callable[..., AiM], tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """A hub with one good repository, and an empty cache."""
    folder = tmp_path / "repo"
    export_official(make_model(position_offset=1), tiny_vq, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with served(Hub(REPO, files, "model.safetensors"), tmp_path / "cache", monkeypatch) as hub:
        yield hub


def fails(kind: type[AimError], source: str = REPO) -> str:
    """The message of the error that loading ``source`` gives."""
    with pytest.raises(kind) as caught:
        load_model(source)
    assert source in str(caught.value)
    return str(caught.value)


def assert_loads(make_model: Callable[..., AiM]) -> None:
    loaded = load_model(REPO)
    assert loaded.name == REPO
    assert all(
        torch.equal(tensor, loaded.model.state_dict()[name])
        for name, tensor in make_model().state_dict().items()
    )


def unfinished(tmp_path: Path) -> list[Path]:
    return [*(tmp_path / "cache").rglob("*.incomplete")]


def test_bytes_are_counted_as_they_come(hub: Hub, make_model: Callable[..., AiM]):
    before = fetched(REPO)
    assert_loads(make_model)
    assert fetched(REPO) - before == sum(
        len(hub.files[name]) for name in ("config.json", "model.safetensors")
    )
    assert_loads(make_model)
    assert fetched(REPO) - before == sum(
        len(hub.files[name]) for name in ("config.json", "model.safetensors")
    ), "it was in the cache"


def test_a_repository_is_fetched_once_and_kept(
    hub: Hub, make_model: Callable[..., AiM], monkeypatch: pytest.MonkeyPatch
):
    assert_loads(make_model)
    assert {line.rsplit("/", 1)[1] for line in hub.requests if "/resolve/" in line} == {
        "config.json",
        "model.safetensors",
    }
    assert_loads(make_model)
    assert (hub.downloads("config.json"), hub.downloads("model.safetensors")) == (1, 1)

    monkeypatch.setenv("HF_ENDPOINT", nobody_listens())
    assert_loads(make_model)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_loads(make_model)


@pytest.mark.parametrize("status", [500, 503, 401])
def test_a_kept_copy_serves_while_the_hub_is_ill(
    hub: Hub, make_model: Callable[..., AiM], status: int
):
    assert_loads(make_model)
    hub.status = status
    assert_loads(make_model)


def test_a_named_model_comes_from_its_repository(
    hub: Hub, make_model: Callable[..., AiM], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(MODELS, "aim-b", replace(MODELS["aim-b"], repo=REPO))
    assert load_model("aim-b").name == "aim-b"
    monkeypatch.setitem(MODELS, "aim-b", replace(MODELS["aim-b"], repo="someone/else"))
    with pytest.raises(HubError, match="no model 'someone/else'"):
        load_model("aim-b")


def test_golden_weights_from_the_hub(hub: Hub, tmp_path: Path, make_model: Callable[..., AiM]):
    weights = tmp_path / "golden.safetensors"
    weights.write_bytes(hub.files["model.safetensors"])
    tensors = load_file(weights)
    fill(tensors, 4)
    save_file(tensors, weights)
    hub.files["model.safetensors"] = weights.read_bytes()
    loaded = load_model(REPO).model
    assert loaded.config == make_model(position_offset=1).config
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, tensors["mamba.backbone." + name])


def test_a_connection_cut_in_the_middle_resumes(hub: Hub, make_model: Callable[..., AiM]):
    hub.cuts = 1
    assert_loads(make_model)
    assert hub.downloads("model.safetensors") == 2


def test_a_connection_cut_for_good_can_be_tried_again(
    hub: Hub, make_model: Callable[..., AiM], tmp_path: Path
):
    hub.cuts = 10**6
    message = fails(HubError)
    assert "broke off" in message
    assert "try again" in message
    assert hub.url in message
    assert unfinished(tmp_path) == []

    hub.cuts = 0
    assert_loads(make_model)


def test_a_download_that_trickles_ends_and_is_resumed(
    hub: Hub, make_model: Callable[..., AiM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub_module, "PIECE", 4096)
    monkeypatch.setattr(hub_module, "_most_seconds", lambda: 0.15)
    hub.pause = 0.1
    started = time.monotonic()
    assert "broke off (it took over 0.0025 minutes): try again" in fails(HubError)
    assert time.monotonic() - started < 2
    monkeypatch.setattr(hub_module, "_most_seconds", lambda: 60.0)
    stopping = threading.Timer(0.15, hub_module.stop, (REPO,))
    stopping.start()
    assert "broke off (it was stopped)" in fails(HubError)
    hub.pause = 0.0
    assert_loads(make_model)


def test_a_file_of_another_size_than_announced_is_not_taken(
    hub: Hub, make_model: Callable[..., AiM], tmp_path: Path
):
    hub.sends_less = 100
    message = fails(HubError)
    assert "broke off" in message
    assert "try again" in message
    assert unfinished(tmp_path) == []
    hub.sends_less = 0
    assert_loads(make_model)


def test_a_missing_repository_is_named(hub: Hub):
    message = fails(HubError, "someone/no-such-model")
    assert "has no model 'someone/no-such-model'" in message
    assert hub.url in message
    assert "private" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_of_another_layout_is_told(hub: Hub, name: str):
    del hub.files[name]
    message = fails(HubError)
    assert f"{REPO} has no {name}" in message
    assert "layout" in message


def test_nothing_listening_is_told_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    def wait(_: float) -> None:
        raise AssertionError("it must not wait and try again")

    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", wait)
    nobody = nobody_listens()
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    message = fails(HubError)
    assert f"the hub at {nobody} is out of reach" in message
    assert "try again" in message


def test_offline_mode_without_a_copy_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in fails(HubError)
    assert hub.requests == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_ill_hub_is_told_with_its_answer(hub: Hub, status: int):
    hub.status = status
    message = fails(HubError)
    assert str(status) in message
    assert "try again later" in message


def test_an_address_that_is_none_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    assert "no address" in fails(HubError)


def test_a_damaged_download_says_what_to_delete(
    hub: Hub, make_model: Callable[..., AiM], tmp_path: Path
):
    whole = hub.files["model.safetensors"]
    hub.files["model.safetensors"] = whole[:-8]
    message = fails(CheckpointError)
    kept = tmp_path / "cache" / "models--someone--tiny-aim"
    assert f"delete {kept}" in message
    assert kept.is_dir()


def test_a_configuration_that_is_not_supported_is_named(hub: Hub):
    values: dict[str, Any] = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps(values | {"attn_layer_idx": [3]}).encode()
    assert "attn_layer_idx is [3]" in fails(CheckpointError)


def test_the_documented_variables_work_in_a_fresh_process(hub: Hub, tmp_path: Path):
    script = (
        "import sys; from aim.checkpoint import load_model; print(load_model(sys.argv[1]).version)"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "AIM_"))}

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**kept, "HF_HOME": str(tmp_path / "home"), **variables}
        command = [sys.executable, "-c", script, REPO]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )

    fetched = run(HF_ENDPOINT=hub.url)
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "home" / "hub" / "models--someone--tiny-aim").is_dir()
    again = run(HF_ENDPOINT=nobody_listens(), HF_HUB_OFFLINE="1")
    assert again.stdout == fetched.stdout
    elsewhere = run(HF_ENDPOINT=nobody_listens(), HF_HOME=str(tmp_path / "empty"))
    assert "HubError" in elsewhere.stderr
    assert "out of reach" in elsewhere.stderr
