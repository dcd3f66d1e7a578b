"""LlamaGen's checkpoints: every form they come in loads, no code in them runs, and whatever does
not fit is named.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aim.checkpoint import llamagen, load_model
from aim.checkpoint.torch_file import NOTHING
from aim.config import LLAMAGEN, MODELS, VQ_F16, SamplingParams
from aim.errors import CheckpointError, HubError, InvalidInput
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from tests.files import assert_equal
from tests.loopback import Hub, nobody_listens, served
from tests.tiny import random_gpt

LAYOUT = Path(__file__).resolve().parent / "golden" / "llamagen_layout.json"
TOKENIZER = "vq_ds16_c2i.pt"
Write = Callable[..., Path]


def tiny_gpt(seed: int = 0, **changes: Any) -> GPT:
    """With heads and a feed-forward network of their sizes, and nothing that their files do not
    hold.
    """
    return random_gpt(
        seed,
        **{"n_head": 1, "multiple_of": 256, "classes": (), "sampling": SamplingParams(), **changes},
    )


class Harm:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def write(tmp_path: Path, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a prior of the given content; the tokenizer, of a tiny kind, is beside it."""
    monkeypatch.setattr(llamagen, "VQ_F16", tiny_vq.config)
    for layers in (0, 1, 2, 3):
        monkeypatch.setitem(llamagen.SIZES, (64, layers, 1), "T")
    counter = {"quantize.codebook_used": torch.zeros(65536)}
    torch.save({"model": {**tiny_vq.state_dict(), **counter}}, tmp_path / TOKENIZER)

    def write(content: object, name: str = "c2i_T_016.pt", **how: Any) -> Path:
        torch.save(content, tmp_path / name, **how)
        return tmp_path / name

    return write


SETTINGS = argparse.Namespace(
    gpt_model="GPT-B", lr=1e-4, image_size=16, gpt_ckpt=None, betas=(0.9, 0.95)
)
FORMS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "bare": lambda weights: weights,
    "of the trainer": lambda weights: {
        "model": weights,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
        "steps": 7,
        "args": SETTINGS,
    },
    "module": lambda weights: {"module": weights},
    "state_dict": lambda weights: {"state_dict": weights},
    "with the rotary table": lambda weights: {
        "model": {**weights, "freqs_cis": torch.zeros(17, 32, 2)}
    },
    "ema": lambda weights: {"ema": weights, "steps": 7},
    "of processes": lambda weights: {f"module.{k}": w for k, w in weights.items()},
    "of processes, compiled": lambda weights: {
        "model": {f"module._orig_mod.{k}": w for k, w in weights.items()}
    },
    "compiled by layers": lambda weights: {
        k.replace(".attention.", "._orig_mod.attention."): w for k, w in weights.items()
    },
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads(write: Write, tiny_vq: VQ, form: str, zipped: bool):
    model = tiny_gpt()
    path = write(FORMS[form](model.state_dict()), _use_new_zipfile_serialization=zipped)
    loaded = load_model(path)
    assert loaded.name == "c2i_T_016"
    assert loaded.model.config == model.config
    assert loaded.tokenizer.config == tiny_vq.config
    assert_equal(loaded.model, model)
    assert_equal(loaded.tokenizer, tiny_vq)
    assert not loaded.model.training
    assert_equal(
        load_model(str(path), dtype=torch.bfloat16).model, tiny_gpt().to_dtype(torch.bfloat16)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_dtype_they_are_stored_in_loads(write: Write, dtype: torch.dtype):
    stored = {name: tensor.to(dtype) for name, tensor in tiny_gpt().state_dict().items()}
    loaded = load_model(write({"model": stored})).model.state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in loaded.items())


def test_the_version_follows_the_weights(write: Write):
    first, again, other = (
        load_model(write({"model": tiny_gpt(seed).state_dict()})).version for seed in (0, 0, 1)
    )
    assert len(first) == 12
    assert first == again != other


def test_a_loaded_model_outlives_its_file(write: Write):
    path = write(tiny_gpt().state_dict())
    loaded = load_model(path).model
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert_equal(loaded, tiny_gpt())


def test_several_threads_may_load(write: Write):
    path = write({"model": tiny_gpt().state_dict(), "args": SETTINGS})
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: load_model(path).version, range(32)))
    assert len(set(versions)) == 1
    assert argparse.Namespace not in torch.serialization.get_safe_globals(), (
        "nobody else is allowed it"
    )


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].repo == LLAMAGEN])
def test_the_configuration_is_read_off_the_released_tensors(name: str):
    spec = MODELS[name]
    official = "GPT-" + name.split("-")[1].upper()
    shapes = json.loads(LAYOUT.read_text())[official]["tensors"]
    weights = {tensor: torch.empty(shape, device="meta") for tensor, shape in shapes.items()}
    size = llamagen._image_size(Path(spec.file), {}, weights, NOTHING)
    assert size == spec.tokenizer.image_size
    assert llamagen._inferred(Path("some.pt"), weights, (size // 16) ** 2) == spec.config


@pytest.mark.parametrize(
    "name, settings", [("c2i_XL_032.pt", None), ("mine.pt", argparse.Namespace(image_size=32))]
)
def test_the_size_of_the_image_is_the_trainer_s_or_the_file_name_s(
    write: Write, name: str, settings: object
):
    loaded = load_model(write({"model": tiny_gpt().state_dict(), "args": settings}, name))
    assert loaded.model.config.num_tokens == 64
    assert loaded.tokenizer.config.image_size == 32


@pytest.mark.parametrize("size", [30, 0, -4, "large", None, 10**9])
def test_an_impossible_size_is_named(write: Write, size: object):
    path = write({"model": tiny_gpt().state_dict(), "args": argparse.Namespace(image_size=size)})
    with pytest.raises(
        CheckpointError,
        match=r"T_016\.pt is for images of .* pixels; it must be a multiple of 4",
    ):
        load_model(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["args", "model"])
def test_code_is_not_run(write: Write, tmp_path: Path, where: str, zipped: bool):
    content = {"model": tiny_gpt().state_dict(), where: Harm(tmp_path / "harm")}
    with pytest.raises(
        CheckpointError, match=r"c2i_T_016\.pt holds \w+\.mkdir, which was not run; only tensors"
    ):
        load_model(write(content, _use_new_zipfile_serialization=zipped))
    with pytest.raises(CheckpointError, match=rf"{TOKENIZER} holds \w+\.mkdir"):
        write(content, TOKENIZER)
        load_model(write({"model": tiny_gpt().state_dict()}))
    assert not (tmp_path / "harm").exists()


def test_other_objects_are_refused_even_if_harmless(write: Write):
    with pytest.raises(CheckpointError, match=r"holds pathlib\S*Path, which was not run"):
        load_model(write({"model": tiny_gpt().state_dict(), "args": Path("a")}))


def column(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights.update({name: change(weights[name])})


NORM = "norm.weight"
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda w: w.pop("layers.1.attention.wo.weight"),
                r"tensor layers\.1\.attention\.wo\.weight missing"),
    "surplus": (lambda w: w.update(extra=torch.zeros(3)), "tensor extra unexpected"),
    "misshapen": (column(NORM, lambda t: t[:5]),
                  r"norm\.weight \(is \[5\], must be \[64\]\) misshapen"),
    "integers": (column(NORM, lambda t: t.int()),
                 r"norm\.weight \(torch\.int32\) stored neither as F32 nor as BF16 nor as F16"),
    "sparse": (column(NORM, lambda t: t.to_sparse()),
               r"norm\.weight \(not as plain numbers\) stored neither"),
    "a layer out of order": (lambda w: w.update({"layers.9.x": torch.ones(64)}),
                             r"tensor layers\.9\.x unexpected"),
    "no codes": (lambda w: w.pop("tok_embeddings.weight"),
                 r"no class-conditional prior .* no matrix tok_embeddings\.weight"),
    "of text": (lambda w: w.pop("cls_embedding.embedding_table.weight"),
                r"it has no matrix cls_embedding\.embedding_table\.weight"),
    "flat": (column("tok_embeddings.weight", lambda t: t[0]),
             r"it has no matrix tok_embeddings\.weight"),
    "no layers": (lambda w: [w.pop(name) for name in list(w) if name.startswith("layers")],
                  "n_layer is 0; it must be a whole number"),
    "no tensor": (lambda w: w.update(steps=3),
                  "holds values among its tensors that are none: steps"),
    "other vocabulary": (column("tok_embeddings.weight", lambda t: t[:60]),
                         r"output\.weight \(is \[64, 64\], must be \[60, 64\]\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_tensor_is_named(write: Write, fault: str):
    change, message = FAULTS[fault]
    weights = dict(tiny_gpt().state_dict())
    change(weights)
    path = write({"model": weights})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"model": 3}, None])
def test_what_is_no_table_is_refused(write: Write, content: object):
    with pytest.raises(CheckpointError, match=r"c2i_T_016\.pt holds no table of tensors"):
        load_model(write(content))


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_is_refused(write: Write, keep: int, zipped: bool):
    path = write({"model": tiny_gpt().state_dict()}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError,
        match=r"c2i_T_016\.pt cannot be read as a PyTorch checkpoint; it may be cut short",
    ) as caught:
        load_model(path)
    assert "weights_only" not in str(caught.value), "PyTorch's advice is not safe to follow"


@pytest.mark.parametrize(
    "content",
    [b"<html>not found</html>", b"\x80\x02."],
)
def test_a_file_of_another_format_is_refused(write: Write, tmp_path: Path, content: bytes):
    (tmp_path / "c2i_T_016.pt").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"c2i_T_016\.pt cannot be read as a PyTorch checkpoint"
    ):
        load_model(tmp_path / "c2i_T_016.pt")


def test_a_tokenizer_that_is_not_there_or_another_is_named(write: Write, tmp_path: Path):
    path = write({"model": tiny_gpt().state_dict()})
    with pytest.raises(
        CheckpointError, match=rf"{TOKENIZER} holds no class-conditional prior of LlamaGen"
    ):
        load_model(tmp_path / TOKENIZER)
    write({"model": VQ(replace(llamagen.VQ_F16, ch_mult=(1, 2))).state_dict()}, TOKENIZER)
    with pytest.raises(
        CheckpointError, match=rf"{TOKENIZER} does not fit its configuration: tensors .* missing"
    ):
        load_model(path)
    (tmp_path / TOKENIZER).unlink()
    with pytest.raises(
        CheckpointError, match=rf"c2i_T_016\.pt needs its tokenizer {TOKENIZER}, which is not in"
    ):
        load_model(path)
    with pytest.raises(CheckpointError, match=r"no file or folder 'gone\.pt'"):
        load_model("gone.pt")


def test_a_vocabulary_that_the_tokenizer_lacks_is_named(write: Write):
    with pytest.raises(CheckpointError, match="draws 65 codes, its tokenizer knows 64"):
        load_model(write({"model": tiny_gpt(vocab_size=65).state_dict()}))


@pytest.fixture
def hub(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Their repository with two tiny models, named gpt-b and gpt-l, and one of a larger grid."""
    for name, seed, grid in (("gpt-b", 0, 4), ("gpt-l", 1, 4), ("gpt-xxl-384", 2, 6)):
        model = tiny_gpt(seed, num_tokens=grid**2)
        write({"model": model.state_dict(), "args": SETTINGS}, f"{name}.pt")
        tokenizer = replace(llamagen.VQ_F16, image_size=4 * grid)
        spec = replace(MODELS[name], config=model.config, tokenizer=tokenizer, file=f"{name}.pt")
        monkeypatch.setitem(MODELS, name, spec)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with served(Hub(LLAMAGEN, files, "gpt-b.pt"), tmp_path / "cache", monkeypatch) as hub:
        yield hub


def test_two_models_of_one_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    for name, seed in (("gpt-b", 0), ("gpt-l", 1), ("gpt-b", 0)):
        loaded = load_model(name)
        assert loaded.name == name
        assert_equal(loaded.model, tiny_gpt(seed))
    assert [hub.downloads(name) for name in sorted(hub.files)] == [1, 1, 0, 1]
    larger = load_model("gpt-xxl-384")
    assert larger.model.config.num_tokens == 36
    assert larger.tokenizer.config.output_size == 24, "what the table says, not the file"
    monkeypatch.setenv("HF_ENDPOINT", nobody_listens())
    assert_equal(load_model("gpt-b").model, tiny_gpt())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_equal(load_model("gpt-l").model, tiny_gpt(1))


def test_a_part_of_a_release_is_no_copy(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    load_model("gpt-b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="unset HF_HUB_OFFLINE"):
        load_model("gpt-l")


def test_a_cut_connection_resumes_or_is_told(hub: Hub, tmp_path: Path):
    hub.cuts = 10**6
    with pytest.raises(HubError, match=f"the download of {LLAMAGEN} from {hub.url} broke off"):
        load_model("gpt-b")
    assert [*(tmp_path / "cache").rglob("*.incomplete")] == []
    hub.cuts = 1
    assert_equal(load_model("gpt-b").model, tiny_gpt())


@pytest.mark.parametrize("name", [TOKENIZER, "gpt-b.pt"])
def test_a_file_that_the_repository_lacks_is_named(hub: Hub, name: str):
    del hub.files[name]
    message = (
        f"{LLAMAGEN} has no {name}: it is not in LlamaGen's official layout, "
        f"{TOKENIZER} and gpt-b.pt"
    )
    with pytest.raises(HubError, match=message):
        load_model("gpt-b")


def test_a_damaged_download_says_what_to_delete(hub: Hub, tmp_path: Path):
    hub.files["gpt-b.pt"] = hub.files["gpt-b.pt"][:-8]
    with pytest.raises(
        CheckpointError, match=r"delete .*models--FoundationVision--LlamaGen and load gpt-b again"
    ):
        load_model("gpt-b")


def test_a_file_of_another_model_than_named_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        MODELS, "gpt-b", replace(MODELS["gpt-b"], config=tiny_gpt(n_layer=3).config)
    )
    with pytest.raises(
        CheckpointError, match=r"tensors layers\.2\.attention\.wo\.weight, .* missing"
    ):
        load_model("gpt-b")


def test_the_repository_is_no_model(hub: Hub):
    with pytest.raises(
        InvalidInput,
        match="FoundationVision/LlamaGen holds several models: give one of their names, "
        "gpt-b, gpt-l",
    ):
        load_model(LLAMAGEN)


def test_the_tokenizer_is_the_one_of_the_models_on_the_hub():
    for spec in MODELS.values():
        if spec.file:
            assert replace(spec.tokenizer, image_size=256) == VQ_F16
