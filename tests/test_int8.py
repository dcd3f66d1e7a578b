"""Weights in 8 bits: what a file holds, what comes back, the same on every machine, and what is
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from aim.checkpoint import load_model, save_model, save_tokenizer
from aim.errors import CheckpointError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.training.launch import Options
from tests.files import assert_equal, rewrite
from tests.tiny import random_gpt, random_model

MATRIX = "layers.0.mixer.in_proj.weight"


@pytest.fixture
def small(tmp_path: Path, tiny_vq: VQ) -> Path:
    """A prior and its tokenizer in 8 bits."""
    save_tokenizer(tmp_path / "tiny-vq.safetensors", tiny_vq, {}, torch.int8)
    path = tmp_path / "tiny.safetensors"
    save_model(path, random_model(), {"tokenizer": "tiny-vq.safetensors"}, torch.int8)
    return path


@pytest.mark.parametrize("build", [random_model, random_gpt])
def test_a_file_holds_matrices_with_a_scale_a_row_and_all_else_in_float32(
    tmp_path: Path, build: Callable[[], AiM]
) -> None:
    model, path = build(), tmp_path / "a.safetensors"
    save_model(path, model, {}, torch.int8)
    stored, weights = load_file(path), model.state_dict()
    in_bf16 = {n: t.dtype for n, t in build().to_dtype(torch.bfloat16).state_dict().items()}
    matrices = {n for n, t in weights.items() if t.dim() > 1 and in_bf16[n] == torch.bfloat16}
    assert MATRIX in matrices or "output.weight" in matrices
    assert any("embedding_table" in name for name in matrices)
    assert any("word_embeddings" in n or "tok_embeddings" in n for n in matrices)
    assert stored.keys() == weights.keys() | {f"{name}.scale" for name in matrices}
    for name, weight in weights.items():
        if name not in matrices:
            assert stored[name].dtype == torch.float32
            assert torch.equal(stored[name], weight), name
            continue
        w = weight.numpy().reshape(len(weight), -1)
        scale = np.abs(w).max(1) / np.float32(127)
        steps = np.rint(w / scale[:, None])
        assert np.array_equal(stored[f"{name}.scale"].numpy(), scale), name
        assert stored[name].dtype == torch.int8
        assert np.array_equal(stored[name].numpy().reshape(w.shape), steps), name
        assert (np.abs(steps).max(1) == 127).all()
    assert not [n for n in matrices if n.endswith((".bias", "A_log", ".D", "dt_bias"))]
    assert not [n for n in matrices if "norm" in n]


def test_weights_come_back_as_products_in_float32(small: Path) -> None:
    stored = load_file(small)
    loaded = load_model(small).model.state_dict()
    for name, weight in loaded.items():
        wanted = stored[name].numpy()
        if wanted.dtype == np.int8:
            scale = stored[f"{name}.scale"].numpy()
            wanted = wanted.astype(np.float32) * scale.reshape(-1, *[1] * (wanted.ndim - 1))
        assert weight.dtype == torch.float32
        assert np.array_equal(weight.numpy(), wanted), name
        assert (weight - random_model().state_dict()[name]).abs().max() <= 0.51 * stored.get(
            f"{name}.scale", torch.zeros(1)
        ).max(), name


def test_bfloat16_is_rounded_once(small: Path) -> None:
    exact = load_model(small)
    rounded = load_model(small, dtype=torch.bfloat16)
    assert_equal(rounded.model, exact.model.to_dtype(torch.bfloat16))
    assert_equal(rounded.tokenizer, exact.tokenizer.to_dtype(torch.bfloat16))


def test_the_tokenizer_s_codebook_stays_exact(small: Path, tiny_vq: VQ) -> None:
    stored = load_file(small.with_name("tiny-vq.safetensors"))
    table = stored["quantize.embedding.weight"]
    assert torch.equal(table, tiny_vq.state_dict()["quantize.embedding.weight"])
    convolutions = {n for n, t in tiny_vq.state_dict().items() if t.dim() == 4}
    assert {n for n, t in stored.items() if t.dtype == torch.int8} == convolutions


def test_metadata_and_version_say_so(small: Path) -> None:
    with safe_open(small, "pt") as file:
        metadata = file.metadata()
    assert metadata["storage"] == "int8"
    again = small.with_name("again.safetensors")
    names = {"tokenizer": "tiny-vq.safetensors"}
    assert save_model(again, random_model(), names, torch.int8) == metadata["version"]
    assert load_model(again).version == metadata["version"]
    assert save_model(again, random_model(), names) != metadata["version"]
    changed = random_model()
    changed.layers[0].mixer.in_proj.weight[3] *= 2  # the same steps, another scale
    assert save_model(again, changed, names, torch.int8) != metadata["version"]
    with pytest.raises(InvalidInput, match="metadata 'storage' is 'int4'"):
        save_model(again, random_model(), {"storage": "int4"})


def test_rows_of_zeros_and_of_the_smallest_numbers(tmp_path: Path) -> None:
    model, path = random_model(), tmp_path / "a.safetensors"
    weight = model.layers[0].mixer.in_proj.weight
    weight[0], weight[1], weight[2] = 0, 1.9e-43, -1.9e-43
    save_model(path, model, {"tokenizer": "vq.safetensors"}, torch.int8)
    rows = load_file(path)[MATRIX][:3]
    assert rows[:, 0].tolist() == [0, 127, -127]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_cannot_be_stored(tmp_path: Path, value: float) -> None:
    model = random_model()
    model.layers[0].mixer.in_proj.weight[3, 5] = value
    with pytest.raises(InvalidInput, match=rf"{MATRIX} holds weights that are not finite"):
        save_model(tmp_path / "a.safetensors", model, {}, torch.int8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.int16])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInput, match=f"storage is {dtype}; it must be one of float32, bf"):
        save_model(tmp_path / "a.safetensors", random_model(), {}, dtype)


def with_scale(change: Callable[[Tensor], object]) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: change(tensors[f"{MATRIX}.scale"])


FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no scale": (
        lambda t: t.pop(f"{MATRIX}.scale"),
        rf"tensor {MATRIX}\.scale missing",
    ),
    "a scale short": (
        lambda t: t.update({f"{MATRIX}.scale": t[f"{MATRIX}.scale"][:-1].clone()}),
        rf"{MATRIX}\.scale \(is \[\d+\], must be \[\d+\]\) misshapen",
    ),
    "one scale for all": (
        lambda t: t.update({f"{MATRIX}.scale": torch.ones(())}),
        rf"{MATRIX}\.scale \(is \[\], must be \[\d+\]\) misshapen",
    ),
    "a scale of another dtype": (
        lambda t: t.update({f"{MATRIX}.scale": t[f"{MATRIX}.scale"].half()}),
        rf"{MATRIX}\.scale \(F16\) stored neither as F32",
    ),
    "a scale without a matrix in 8 bits": (
        lambda t: t.update({MATRIX: t[MATRIX].float()}),
        rf"tensor {MATRIX}\.scale unexpected",
    ),
    "a matrix misshapen": (
        lambda t: t.update({MATRIX: t[MATRIX][:, :-1].clone()}),
        rf"{MATRIX} \(is \[\d+, 63\], must be \[\d+, 64\]\) misshapen",
    ),
    "a norm in 8 bits": (
        lambda t: t.update(
            {"norm_f.weight": torch.ones(64).to(torch.int8), "norm_f.weight.scale": torch.ones(64)}
        ),
        r"norm_f\.weight\.scale unexpected.*norm_f\.weight \(I8\) stored neither",
    ),
    "other integers": (
        lambda t: t.update({MATRIX: t[MATRIX].int()}),
        rf"{MATRIX} \(I32\) stored neither",
    ),
    "not finite": (with_scale(lambda s: s[4].fill_(float("nan"))), r"scale holds nan; a scale"),
    "infinite": (with_scale(lambda s: s[4].fill_(float("inf"))), r"scale holds inf; a scale"),
    "negative": (with_scale(lambda s: s[4].neg_()), r"scale holds -.*; a scale must be finite and"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_is_named(small: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    rewrite(small, lambda tensors, _: change(tensors))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(small)
    assert str(small) in str(caught.value)
    assert MATRIX in str(caught.value) or "norm_f" in str(caught.value)


def test_what_it_costs_is_little(small: Path, tiny_vq: VQ) -> None:
    loaded, exact = load_model(small), random_model()
    make = torch.Generator().manual_seed(0)
    codes, labels = torch.randint(64, (4, 15), generator=make), torch.tensor([0, 1, 2, 5])
    with torch.no_grad():
        want, got = (model.eval()(codes, labels) for model in (exact, loaded.model))
        assert (got - want).norm() < 0.05 * want.norm()
        want, got = (vq.decode(codes.new_ones(1, 16) * 3) for vq in (tiny_vq, loaded.tokenizer))
        assert (got - want).norm() < 0.05 * want.norm()


def test_an_unknown_storage_is_refused_before_training(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from aim.training.train_prior import Inputs, train_prior

    inputs = Inputs("aim-s", None, None, tmp_path / "out", storage="int4")
    with pytest.raises(InvalidInput, match="storage is int4; it must be one of float32, bfloat16,"):
        train_prior(inputs, Options("cpu", "none"))
