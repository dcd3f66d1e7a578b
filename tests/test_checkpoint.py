"""Our own files round trip exactly, every damaged or foreign one is refused by name, and sources
are told apart.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from aim.checkpoint import load_model, load_tokenizer, save_model, save_tokenizer
from aim.checkpoint.hub import HubModel
from aim.checkpoint.load import bundled_folder
from aim.config import MODELS, SamplingParams
from aim.errors import CheckpointError, HubError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from tests.files import assert_equal, rewrite
from tests.launching import call
from tests.tiny import random_gpt

ROOT = Path(__file__).resolve().parent.parent
Make = Callable[..., AiM]


@pytest.fixture
def ours(tmp_path: Path, tiny_model: AiM, tiny_vq: VQ) -> Path:
    """A prior in our format, its tokenizer beside it."""
    save_tokenizer(tmp_path / "tiny-vq.safetensors", tiny_vq, {})
    save_model(
        tmp_path / "tiny.safetensors",
        tiny_model,
        {"tokenizer": "tiny-vq.safetensors", "data": "none"},
    )
    return tmp_path / "tiny.safetensors"


def test_our_format_round_trips(ours: Path, make_model: Make, tiny_vq: VQ):
    loaded = load_model(ours)
    assert loaded.model.config == make_model().config
    assert loaded.model.config.classes == (1, 207, 281, 285, 985)
    assert loaded.model.config.sampling == SamplingParams(cfg_scale=3.0)
    assert loaded.model.config.position_offset == 0
    assert loaded.tokenizer.config == tiny_vq.config
    assert loaded.name == "tiny"
    assert not loaded.model.training
    assert not loaded.tokenizer.training
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in loaded.model.parameters())
    # what bfloat16 keeps of the weights comes back to the bit
    assert_equal(loaded.model.to_dtype(torch.bfloat16), make_model().to_dtype(torch.bfloat16))


def test_a_transformer_round_trips_too(ours: Path):
    model, path = random_gpt(), ours.with_name("gpt.safetensors")
    version = save_model(path, model, {"tokenizer": "tiny-vq.safetensors"})
    with safe_open(path, "pt") as file:
        assert file.metadata()["kind"] == "gpt"
    loaded = load_model(path)
    assert isinstance(loaded.model, GPT)
    assert (loaded.model.config, loaded.version) == (model.config, version)
    assert_equal(loaded.model.to_dtype(torch.bfloat16), model.to_dtype(torch.bfloat16))
    with pytest.raises(
        CheckpointError, match=r"several models, gpt\.safetensors, tiny\.safetensors"
    ):
        load_model(ours.parent)


def test_each_kind_has_its_own_configuration(ours: Path):
    rewrite(ours, lambda _, metadata: metadata.update(kind="gpt"))
    with pytest.raises(
        CheckpointError,
        match=r"tiny\.safetensors: unknown in the configuration: adaln_group, d_conv",
    ):
        load_model(ours)


def test_matrices_are_stored_in_bfloat16_and_the_rest_in_float32(ours: Path, make_model: Make):
    want = {
        name: tensor.dtype
        for name, tensor in make_model().to_dtype(torch.bfloat16).state_dict().items()
    }
    assert {name: tensor.dtype for name, tensor in load_file(ours).items()} == want
    with safe_open(ours, "pt") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"format", "kind", "config", "version", "tokenizer", "data"}
    assert (metadata["format"], metadata["kind"]) == ("aim", "aim")


def test_bfloat16_loads_as_saved(ours: Path, make_model: Make):
    loaded = load_model(ours, dtype=torch.bfloat16)
    assert_equal(loaded.model, make_model().to_dtype(torch.bfloat16))
    assert loaded.tokenizer.dtype == torch.bfloat16


def test_float32_can_be_stored_exactly(tmp_path: Path, tiny_model: AiM, tiny_vq: VQ):
    save_tokenizer(tmp_path / "vq.safetensors", tiny_vq, {}, dtype=torch.float32)
    save_model(
        tmp_path / "a.safetensors", tiny_model, {"tokenizer": "vq.safetensors"}, dtype=torch.float32
    )
    loaded = load_model(tmp_path / "a.safetensors")
    assert_equal(loaded.model, tiny_model)
    assert_equal(loaded.tokenizer, tiny_vq)
    assert_equal(load_tokenizer(tmp_path / "vq.safetensors"), tiny_vq)


def test_the_version_follows_the_content(tmp_path: Path, make_model: Make):
    def version(name: str, model: AiM, **metadata: str) -> str:
        returned = save_model(tmp_path / name, model, metadata)
        with safe_open(tmp_path / name, "pt") as file:
            assert file.metadata()["version"] == returned
        return returned

    first = version("a.safetensors", make_model())
    assert len(first) == 12
    assert version("b.safetensors", make_model(), note="other words about it") == first
    changed = make_model()
    changed.norm_f.weight[0] += 1
    assert version("c.safetensors", changed) != first
    assert version("d.safetensors", make_model(sampling=SamplingParams(cfg_scale=1.5))) != first


def test_a_loaded_model_outlives_its_file(ours: Path, tiny_model: AiM):
    loaded = load_model(ours).model
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    ours.write_bytes(b"\xff" * ours.stat().st_size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


def test_a_saved_file_has_the_usual_permissions(ours: Path):
    (ours.parent / "plain").touch()
    assert ours.stat().st_mode == (ours.parent / "plain").stat().st_mode


def test_a_save_that_fails_leaves_the_old_file(
    ours: Path, tiny_model: AiM, monkeypatch: pytest.MonkeyPatch
):
    old = ours.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("aim.files.os.replace", full)
    with pytest.raises(InvalidInput, match=r"cannot write .*tiny\.safetensors: No space"):
        save_model(ours, tiny_model, {})
    assert ours.read_bytes() == old
    assert {path.name for path in ours.parent.iterdir()} == {
        "tiny.safetensors",
        "tiny-vq.safetensors",
    }


@pytest.mark.parametrize(
    "metadata",
    [{"version": "1"}, {"config": "{}"}, {"epochs": 3}, {"tokenizer": "../vq.safetensors"}],
)
def test_metadata_that_would_mislead_is_refused(
    tmp_path: Path, tiny_model: AiM, metadata: dict[str, str]
):
    with pytest.raises(InvalidInput, match=next(iter(metadata))):
        save_model(tmp_path / "a.safetensors", tiny_model, metadata)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_one_prior_is_enough(ours: Path, tiny_model: AiM):
    assert load_model(ours.parent).model.config == tiny_model.config
    assert load_model(str(ours.parent)).name == ours.parent.name
    save_model(ours.parent / "second.safetensors", tiny_model, {})
    with pytest.raises(
        CheckpointError, match=r"several models, second\.safetensors, tiny\.safetensors"
    ):
        load_model(ours.parent)


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda t: t.pop("layers.1.mixer.D"), r"tensor layers\.1\.mixer\.D missing"),
    "surplus": (lambda t: t.update(extra=torch.zeros(3)), "tensor extra unexpected"),
    "misshapen": (
        lambda t: t.update({"norm_f.weight": torch.ones(65)}),
        r"norm_f\.weight \(is \[65\], must be \[64\]\) misshapen",
    ),
    "float16": (
        lambda t: t.update({"norm_f.weight": torch.ones(64).half()}),
        r"norm_f\.weight \(F16\) stored neither as F32 nor as BF16",
    ),
    "integers": (
        lambda t: t.update({"norm_f.weight": torch.ones(64).int()}),
        r"norm_f\.weight \(I32\) stored neither",
    ),
    "all": (
        lambda t: t.clear() or t.update(x=torch.ones(1)),
        r"tensors .* and \d+ more missing; tensor x unexpected",
    ),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_a_wrong_tensor_is_named(ours: Path, fault: str):
    change, message = TENSOR_FAULTS[fault]
    rewrite(ours, lambda tensors, _: change(tensors))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(ours)
    assert str(ours) in str(caught.value)


def set_config(**values: Any) -> Callable[[dict[str, str]], object]:
    def change(metadata: dict[str, str]) -> None:
        config = json.loads(metadata["config"]) | values
        metadata["config"] = json.dumps(
            {name: value for name, value in config.items() if value is not None}
        )

    return change


METADATA_FAULTS: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
    "no metadata": (
        lambda m: m.clear() or m.update(a="b"),
        "not a checkpoint of this package.*format None",
    ),
    "foreign format": (
        lambda m: m.update(format="pt"),
        "not a checkpoint of this package.*format 'pt'",
    ),
    "no config": (lambda m: m.pop("config"), "has no config in its metadata"),
    "no version or kind": (
        lambda m: m.pop("version") and m.pop("kind"),
        "has no kind and no version",
    ),
    "other kind": (lambda m: m.update(kind="unet"), "a network of kind 'unet'; a prior is needed"),
    "a tokenizer": (lambda m: m.update(kind="vq"), "holds a tokenizer; a prior is needed"),
    "config no JSON": (lambda m: m.update(config="{"), "not JSON"),
    "config no object": (lambda m: m.update(config="[1]"), "not a JSON object"),
    "unknown field": (set_config(colour=1), "unknown in the configuration: colour"),
    "missing field": (set_config(n_layer=None), "missing in the configuration: n_layer"),
    "wrong type": (set_config(n_layer="2"), "n_layer is '2'; it must be a whole number"),
    "boolean number": (set_config(n_layer=True), "n_layer is True"),
    "huge": (set_config(n_layer=10**12), "n_layer is 1000000000000; it must be a whole number in"),
    "zero": (set_config(headdim=0), "headdim is 0"),
    "wrong offset": (
        set_config(position_offset=2),
        r"position_offset is 2; it must be a whole number in \[0, 1\]",
    ),
    "wrong flag": (set_config(adaln_group=1), "adaln_group is 1; it must be true or false"),
    "wrong number": (set_config(norm_eps="small"), "norm_eps is 'small'; it must be a number"),
    "wrong fraction": (
        set_config(mixer_drop=1.5),
        r"mixer_drop is 1\.5; it must be a number in \[0, 1\]",
    ),
    "endless number": (
        set_config(norm_eps=float("inf")),
        r"norm_eps is inf; it must be a number in \[0, 1\]",
    ),
    "wrong list": (
        set_config(classes=[1, -2, 3, 4, 5]),
        r"classes is \[1, -2, 3, 4, 5\]; it must be a list, each entry a whole number in \[0, ",
    ),
    "no list": (set_config(classes=1), "classes is 1; it must be a list"),
    "nameless class": (
        set_config(class_names=["a", "", "c", "d", "e"]),
        r"class_names is \['a', ''.*; it must be a list, each entry a text of 1 to 1000 characters",
    ),
    "text for a number of sampling": (
        set_config(sampling={"top_p": "0.5"}),
        r"top_p is '0\.5'; it must be a number",
    ),
    "unknown in sampling": (
        set_config(sampling={"colour": 1}),
        "unknown in the configuration: colour",
    ),
    "classes do not fit": (set_config(classes=[1, 2]), "classes has 2 entries for num_classes = 5"),
    "wrong sampling": (set_config(sampling={"temperature": -1}), "temperature is -1"),
    "no sampling object": (set_config(sampling=3), "sampling is 3; it must be a JSON object"),
    "other vocabulary": (
        set_config(vocab_size=128),
        r"word_embeddings\.weight \(is \[64, 64\], must be \[128, 64\]\)",
    ),
    "no tokenizer": (lambda m: m.pop("tokenizer"), "names no tokenizer file"),
    "tokenizer elsewhere": (
        lambda m: m.update(tokenizer="../tiny-vq.safetensors"),
        "names no tokenizer file beside it",
    ),
    "tokenizer gone": (
        lambda m: m.update(tokenizer="gone.safetensors"),
        r"needs its tokenizer gone\.safetensors",
    ),
}


@pytest.mark.parametrize("fault", METADATA_FAULTS)
def test_wrong_metadata_is_named(ours: Path, fault: str):
    change, message = METADATA_FAULTS[fault]
    rewrite(ours, lambda _, metadata: change(metadata))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(ours)
    assert str(ours) in str(caught.value)


def test_a_tokenizer_that_does_not_fit_is_refused(ours: Path, make_model: Make, tiny_vq: VQ):
    names = {"tokenizer": "tiny-vq.safetensors"}
    save_model(ours, make_model(vocab_size=65), names)
    with pytest.raises(CheckpointError, match="draws 65 codes, its tokenizer knows 64"):
        load_model(ours)
    save_model(ours, make_model(num_tokens=25), names)
    with pytest.raises(
        CheckpointError, match="25 codes an image, its tokenizer reads a grid of 4x4"
    ):
        load_model(ours)
    with pytest.raises(CheckpointError, match="holds a prior; a tokenizer is needed"):
        load_tokenizer(ours)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_a_file_cut_short_is_refused(ours: Path, keep: int):
    ours.write_bytes(ours.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError, match=r"tiny\.safetensors cannot be read as a safetensors file"
    ):
        load_model(ours)


def test_a_foreign_file_is_refused(tmp_path: Path):
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"weights\.bin cannot be read as a safetensors file"):
        load_model(path)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(
        CheckpointError,
        match=r"neither config\.json with model\.safetensors nor a model of this package",
    ):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "gone.safetensors",
        "./gone",
        "a/b/c",
        "~/no-such-file-here",
        "/gone",
        "/" + "x" * 5000,
        "gone\\folder",
        Path("gone"),
    ],
)
def test_a_path_that_does_not_exist_is_named(
    source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no file or folder") as caught:
        load_model(source)
    assert repr(str(source)) in str(caught.value)


@pytest.mark.parametrize(
    "source, nearest",
    [
        ("aim-m", "aim-"),
        ("AIM-XXL", "aim-xl"),
        ("base", "aim-"),
        ("gpt-m", "gpt-"),
        ("", ""),
        ("x" * 5000, ""),
    ],
)
def test_an_unknown_name_gets_the_nearest(source: str, nearest: str):
    with pytest.raises(InvalidInput, match="no model is called") as caught:
        load_model(source)
    listed = str(caught.value).partition("nearest are ")[2].partition(".")[0].split(", ")
    assert len(listed) == 3
    assert set(listed) <= MODELS.keys()
    assert any(name.startswith(nearest) for name in listed)


def test_a_name_is_that_model_whatever_lies_here(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched: list[str] = []

    def fetch(model: HubModel) -> Path:
        fetched.append(model.repo)
        raise HubError("not today")

    monkeypatch.setattr("aim.checkpoint.load.fetch", fetch)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ours, "aim-b.safetensors")
    (tmp_path / "aim-b").mkdir()
    with pytest.raises(HubError):
        load_model("aim-b")
    assert fetched == ["hp-l33/aim-base"]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_not_called_as_another_model(
    ours: Path, kind: Callable[[Path], str | Path], monkeypatch: pytest.MonkeyPatch
):
    path = ours.with_name("aim-b.safetensors")
    shutil.copy(ours, path)
    assert load_model(kind(path)).name == "aim-b.safetensors"
    folder = ours.parent / "aim-l"
    folder.mkdir()
    for file in (ours, ours.with_name("tiny-vq.safetensors")):
        shutil.copy(file, folder)
    assert load_model(kind(folder)).name == "aim-l/"
    monkeypatch.setenv("AIM_CHECKPOINTS", str(ours.parent))
    shutil.copy(ours, ours.with_name("aim-s.safetensors"))
    assert load_model(kind(ours.with_name("aim-s.safetensors"))).name == "aim-s", "it is that one"


def test_a_path_looks_like_a_path(ours: Path, monkeypatch: pytest.MonkeyPatch):
    folder = ours.parent / "mine"
    folder.mkdir()
    for file in (ours, ours.with_name("tiny-vq.safetensors")):
        shutil.copy(file, folder)
    monkeypatch.chdir(ours.parent)
    for path in ("./mine", "mine/", Path("mine"), "mine/tiny.safetensors", "tiny.safetensors"):
        assert load_model(path).model.config.vocab_size == 64
    with pytest.raises(InvalidInput, match=r"no model is called 'mine'; .* give \./mine"):
        load_model("mine")


@pytest.mark.parametrize("name", ["aim-1b", "gpt-xl"])
def test_a_name_without_weights_says_so(name: str):
    with pytest.raises(
        InvalidInput,
        match=f"{name} has a configuration but no published weights for 256x256; give a "
        "folder or file",
    ):
        load_model(name)


@pytest.mark.parametrize("name", ["aim-s", "gpt-s"])
def test_a_bundled_model_is_found_in_the_folder_set(
    ours: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIM_CHECKPOINTS", str(ours.parent))
    with pytest.raises(
        CheckpointError, match=rf"bundled model {name} is not at .*{name}\.safetensors"
    ):
        load_model(name)
    shutil.copy(ours, ours.with_name(f"{name}.safetensors"))
    assert load_model(name).name == name
    monkeypatch.delenv("AIM_CHECKPOINTS")
    assert bundled_folder() == ROOT / "checkpoints"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_are_refused(ours: Path, dtype: torch.dtype):
    with pytest.raises(InvalidInput, match=r"must be torch\.float32 or torch\.bfloat16"):
        load_model(ours, dtype=dtype)


def seconds_to_load(path: Path) -> float:
    torch.set_num_threads(1)
    start = time.process_time()
    load_model(path, dtype=torch.bfloat16)
    return time.process_time() - start


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_loading_40_million_weights_is_quick(tmp_path: Path, dtype: torch.dtype):
    """A first load in a fresh process, the slow kind, in CPU time of one thread, which a busy
    machine hardly changes.
    """
    spec = MODELS["aim-s"]
    path, names = tmp_path / "aim-s.safetensors", {"tokenizer": "vq.safetensors"}
    save_tokenizer(tmp_path / "vq.safetensors", VQ(spec.tokenizer), {}, dtype)
    save_model(path, AiM(spec.config), names, dtype)
    assert any(call(seconds_to_load, path) < 0.6 for _ in range(3))
