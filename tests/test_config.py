"""Values from outside are taken or refused with their name and range; the table of models holds
together.
"""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.config import MAX_SEED, MODELS, VQ_F4, VQ_F16, AiMConfig, SamplingParams, check_seed
from aim.errors import InvalidInput


@given(
    st.floats(0, 30), st.floats(0, 10), st.integers(0, 2**31 - 1), st.floats(0, 1, exclude_min=True)
)
def test_values_in_range_are_kept(cfg_scale: float, temperature: float, top_k: int, top_p: float):
    params = SamplingParams(cfg_scale, temperature, top_k, top_p)
    assert dataclasses.astuple(params)[:4] == (cfg_scale, temperature, top_k, top_p)


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("cfg_scale", -0.1, "[0, 30]"),
        ("cfg_scale", 30.5, "[0, 30]"),
        ("cfg_scale", math.nan, "[0, 30]"),
        ("cfg_scale", 10**400, "[0, 30]"),
        ("temperature", -1e-9, "[0, 10]"),
        ("temperature", math.inf, "[0, 10]"),
        ("temperature", "warm", "[0, 10]"),
        ("temperature", None, "[0, 10]"),
        ("temperature", True, "[0, 10]"),
        ("top_k", -1, "[0, 2147483647]"),
        ("top_k", 1.5, "[0, 2147483647]"),
        ("top_k", 2**31, "[0, 2147483647]"),
        ("top_k", math.inf, "[0, 2147483647]"),
        ("top_k", math.nan, "[0, 2147483647]"),
        ("top_k", True, "[0, 2147483647]"),
        ("top_k", "5", "[0, 2147483647]"),
        ("top_k", [5], "[0, 2147483647]"),
        ("top_p", 0, "(0, 1]"),
        ("top_p", 1.001, "(0, 1]"),
        ("top_p", -0.5, "(0, 1]"),
    ],
)
def test_values_out_of_range_are_refused_with_name_and_range(
    field: str, value: object, allowed: str
):
    with pytest.raises(InvalidInput) as caught:
        SamplingParams(**{field: value})
    assert (
        field in str(caught.value)
        and allowed in str(caught.value)
        and repr(value)[:70] in str(caught.value)
    )


def test_numbers_of_other_types_become_plain_ones():
    params = SamplingParams(
        cfg_scale=2, temperature=np.float32(0.5), top_k=np.int64(7), top_p="0.5"
    )
    assert params == SamplingParams(2.0, 0.5, 7, 0.5)
    assert [type(v) for v in dataclasses.astuple(params)[:4]] == [float, float, int, float]
    assert SamplingParams(top_k=7.0).top_k == 7


def test_replace_checks_and_leaves_what_is_none():
    params = SamplingParams(cfg_scale=3.0, top_k=5)
    assert params.replace(cfg_scale=None, top_k=None) == params
    assert params.replace(top_k=0, top_p=None).top_k == 0
    with pytest.raises(InvalidInput, match="top_p"):
        params.replace(top_p=2)


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED, 5.0, np.int64(9)])
def test_seeds_in_range(seed: object):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize(
    "seed", [-1, MAX_SEED + 1, 0.5, "1", None, True, math.nan, math.inf, 10**400]
)
def test_seeds_out_of_range(seed: object):
    with pytest.raises(InvalidInput, match=r"seed is .*\[0, 4294967295\]"):
        check_seed(seed)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"d_model": 48}, "headdim 64 does not divide"),
        ({"num_groups": 0}, "num_groups is 0"),
        ({"num_groups": 5}, "num_groups is 5"),
        ({"classes": (1, 2)}, "classes has 2 entries for num_classes = 1000"),
        ({"class_names": ("cat",)}, "class_names has 1 entries for num_classes = 1000"),
        (
            {"classes": (1,), "class_names": ("cat",), "num_classes": 1},
            "class_names are for classes of the model's own",
        ),
    ],
)
def test_model_configurations_that_do_not_fit(changes: dict[str, object], message: str):
    with pytest.raises(InvalidInput, match=message):
        AiMConfig(**{"d_model": 64, "n_layer": 4, **changes})


def test_derived_sizes():
    config = AiMConfig(d_model=768, n_layer=24)
    assert (config.d_inner, config.nheads, config.conv_dim) == (1536, 24, 1792)
    assert (VQ_F16.downsample, VQ_F16.grid) == (16, 16)
    assert (VQ_F4.downsample, VQ_F4.grid) == (4, 16)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_fits_its_tokenizer(name: str):
    spec = MODELS[name]
    assert spec.name == name
    assert spec.config.num_tokens == spec.tokenizer.grid**2
    assert spec.config.vocab_size == spec.tokenizer.codebook_size
    assert bool(spec.repo) == bool(spec.download_mb) == (spec.source == "hub")
