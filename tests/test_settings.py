"""The environment is read once, typed, and refused by variable name."""

import dataclasses
from pathlib import Path

import pytest

from aim.errors import InvalidInput
from aim.settings import Limits, Settings


def test_nothing_set_gives_the_defaults():
    assert Settings.from_env({}) == Settings()
    assert (
        Settings.from_env(
            {
                "AIM_DEVICE": "",
                "AIM_DTYPE": " ",
                "AIM_THREADS": "",
                "AIM_CHECKPOINTS": "",
                "AIM_MODEL": "",
            }
        )
        == Settings()
    )


def test_everything_set(tmp_path: Path):
    environ = {
        "AIM_DEVICE": " CUDA:1 ",
        "AIM_DTYPE": "BFloat16",
        "AIM_MODEL": "hp-l33/aim-xlarge",
        "AIM_THREADS": "1",
        "AIM_CHECKPOINTS": str(tmp_path),
        "AIM_BACKEND": "Eager",
        "AIM_AHEAD": "4",
        "AIM_REPLICAS": "2-8",
        "AIM_CLUSTER": "10.0.0.1:6379",
    }
    assert Settings.from_env(environ) == Settings(
        "cuda:1",
        "bfloat16",
        "hp-l33/aim-xlarge",
        1,
        tmp_path,
        backend="eager",
        ahead="4",
        replicas=(2, 8),
        cluster="10.0.0.1:6379",
    )


@pytest.mark.parametrize("value", ["0", "4-2", "many", "-2", "2-", "1-99999999", "0-4"])
def test_numbers_of_replicas_that_are_none(value: str):
    assert Settings.from_env({"AIM_REPLICAS": "4"}).replicas == (4, 4)
    with pytest.raises(InvalidInput, match=f"AIM_REPLICAS is '{value}'; it must be a number from"):
        Settings.from_env({"AIM_REPLICAS": value})


@pytest.mark.parametrize(
    ("value", "wanted"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_switches(value: str, wanted: bool):
    assert Settings.from_env({"AIM_MCP": value}).mcp is wanted


def test_torchrun_says_which_process_this_is():
    settings = Settings.from_env({"WORLD_SIZE": "16", "RANK": "15", "LOCAL_RANK": "3"})
    assert (settings.world, settings.rank, settings.local_rank) == (16, 15, 3)


@pytest.mark.parametrize("name", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_either_kind_of_desktop_is_a_screen(name: str):
    assert Settings.from_env({name: ":0"}).screen
    assert not Settings.from_env({name: ""}).screen


def test_the_hub_may_be_another():
    assert Settings.from_env({"HF_ENDPOINT": "https://hub.example/"}).hub == "https://hub.example"


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_every_dtype_may_be_named(dtype: str):
    assert Settings.from_env({"AIM_DTYPE": dtype}).dtype == dtype


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIM_DEVICE", "mps")
    assert Settings.from_env().device == "mps"


@pytest.mark.parametrize(
    "name, value, way_out",
    [
        ("AIM_DEVICE", "gpu", "cuda"),
        ("AIM_DEVICE", "cuda:", "cuda:<number>"),
        ("AIM_DTYPE", "float16", "bfloat16"),
        ("AIM_BACKEND", "triton", "gpu"),
        ("AIM_AHEAD", "3", "off"),
        ("AIM_BACKEND", "mamba_ssm", "mamba-ssm"),
        ("AIM_THREADS", "0", "[1, 1024]"),
        ("AIM_THREADS", "-1", "[1, 1024]"),
        ("AIM_THREADS", "two", "[1, 1024]"),
        ("AIM_THREADS", "1.5", "[1, 1024]"),
        ("AIM_THREADS", "²", "[1, 1024]"),
        ("AIM_THREADS", "9" * 5000, "[1, 1024]"),
        ("AIM_CHECKPOINTS", "/no/such/folder", "folder"),
        ("WORLD_SIZE", "0", "[1, 65536]"),
        ("AIM_MCP", "maybe", "one of 0, 1, false, true, no, yes"),
        ("RANK", "1", "[0, 0]"),
        ("LOCAL_RANK", "1", "[0, 0]"),
    ],
)
def test_bad_values_name_the_variable(name: str, value: str, way_out: str):
    with pytest.raises(InvalidInput) as caught:
        Settings.from_env({name: value})
    assert (
        str(caught.value).startswith(name)
        and repr(value) in str(caught.value)
        and way_out in str(caught.value)
    )


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().device = "cpu"  # type: ignore[misc]


def test_a_page_s_limits_are_read_and_refused_by_name():
    assert Limits.from_env({}) == Limits()
    for one in dataclasses.fields(Limits):
        variable, low, high, _ = one.metadata["is"]
        for value in (low, high):
            read = Limits.from_env({variable: f" {value} "})
            assert read == dataclasses.replace(Limits(), **{one.name: value})
        for bad in (low - 1, high + 1, "many", "1.5"):
            with pytest.raises(InvalidInput, match=rf"{variable} is .*\[{low}, {high}\]"):
                Limits.from_env({variable: str(bad)})
