"""Sampling against a slow, obvious computation in float64; ties, extremes, statistics, and
independence of the batch.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from aim.config import INDEX, NEUTRAL, SAMPLING, SamplingParams
from aim.ops.draw import gumbel, uniform
from aim.sampling import (
    BROKEN,
    RowParams,
    Rows,
    _draw_all,
    _draw_live,
    _threshold,
    draw_rows,
    explain,
    guidance,
    guide,
    sample,
)
from aim.schedules import SCHEDULES
from tests.draws import MIN_P, golden_draws

INF = math.inf


def rows(params: SamplingParams | list[SamplingParams], seeds: list[int]) -> RowParams:
    return RowParams.of(params if isinstance(params, list) else [params] * len(seeds), seeds, 64)


def draw_one(
    logits: list[float] | Tensor, params: SamplingParams, seed: int = 0, position: int = 0
) -> int:
    row = torch.as_tensor(logits, dtype=torch.float32)[None]
    return int(sample(row, row, rows(params, [seed]), torch.tensor([position])))


def kept_slowly(logits: np.ndarray, top_k: int, top_p: float, slack: float = 0.0) -> list[bool]:
    """Which codes survive, code by code as the rule is worded; logits after temperature,
    float64.
    """
    codes = range(len(logits))
    k = top_k or len(logits)
    by_k = [sum(logits[j] > logits[i] for j in codes) < k for i in codes]
    weight = [math.exp(logits[i]) if by_k[i] else 0.0 for i in codes]
    total = sum(weight)
    if top_p >= 1:
        return by_k
    return [
        by_k[i] and sum(weight[j] for j in codes if logits[j] > logits[i]) < (top_p + slack) * total
        for i in codes
    ]


def sample_slowly(
    cond: np.ndarray, uncond: np.ndarray, p: SamplingParams, seed: int, position: int
) -> tuple[int, float]:
    """The code, and by how much its score leads: where that is next to nothing, rounding may
    decide.
    """
    guided = uncond + (cond - uncond) * p.cfg_scale
    guided = guided - guided.max()
    if p.temperature == 0:
        return int(np.argmax(guided)), INF
    logits = guided / p.temperature
    u = uniform(torch.tensor([seed]), torch.tensor([position]), len(cond))[0].tolist()
    keep = kept_slowly(logits, p.top_k, p.top_p)
    scores = [
        logits[i] - math.log(-math.log1p(-u[i])) if keep[i] else -INF for i in range(len(cond))
    ]
    best = int(np.argmax(scores))
    lead = scores[best] - max((s for i, s in enumerate(scores) if i != best), default=-INF)
    return best, lead


# multiples of 1/4: guidance by a whole number and a temperature that is a power of two are then
# exact, and ties are common
quarters = st.integers(-24, 24).map(lambda n: n / 4)
exact_params = st.builds(
    SamplingParams,
    cfg_scale=st.sampled_from([0.0, 1.0, 2.0, 5.0]),
    temperature=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 3, 7, 50]),
    top_p=st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.999, 1.0]),
)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.tuples(quarters, quarters), min_size=1, max_size=24),
    exact_params,
    st.integers(0, 2**32 - 1),
    st.integers(0, 300),
)
def test_equals_the_slow_computation(
    pairs: list[tuple[float, float]], params: SamplingParams, seed: int, position: int
):
    cond, uncond = np.array(pairs).T
    logits = uncond + (cond - uncond) * params.cfg_scale
    logits = (logits - logits.max()) / (params.temperature or 1)
    low, high = (kept_slowly(logits, params.top_k, params.top_p, slack) for slack in (-1e-5, 1e-5))
    assume(low == high or params.top_p < 1e-5)  # else float32 may put the border elsewhere
    want, lead = sample_slowly(cond, uncond, params, seed, position)
    assume(lead > 1e-4)
    got = sample(
        torch.tensor(cond, dtype=torch.float32)[None],
        torch.tensor(uncond, dtype=torch.float32)[None],
        rows(params, [seed]),
        torch.tensor([position]),
    )
    assert got.tolist() == [want]


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.one_of(quarters, st.floats(-30, 30, width=32)), min_size=1, max_size=30),
    st.integers(0, 40),
    st.one_of(st.just(1.0), st.floats(2**-20, 1, width=32), st.sampled_from([1e-9, 0.25, 0.5])),
)
def test_threshold_keeps_what_the_rule_keeps(values: list[float], top_k: int, top_p: float):
    logits = torch.tensor(values, dtype=torch.float32)[None]
    logits -= logits.amax()
    threshold = _threshold(logits, rows(SamplingParams(top_k=top_k, top_p=top_p), [0]))
    keep = (logits >= threshold)[0].tolist()
    exact = logits[0].double().numpy()
    least, most = (kept_slowly(exact, top_k, top_p, slack) for slack in (-1e-5, 1e-5))
    least[int(np.argmax(exact))] = True
    assert all(k or not must for k, must in zip(keep, least, strict=True))
    assert all(may or not k for k, may in zip(keep, most, strict=True))
    assert all(
        keep[i] == keep[j] for i in range(len(values)) for j in range(i) if exact[i] == exact[j]
    ), "ties stay together"
    assert keep[int(np.argmax(exact))]


def survivors(logits: list[float], params: SamplingParams) -> set[int]:
    """Every code that 400 seeds draw."""
    row = torch.tensor([logits]).expand(400, -1)
    return set(
        sample(
            row, row, rows(params, list(range(400))), torch.zeros(400, dtype=torch.int64)
        ).tolist()
    )


@pytest.mark.parametrize(
    "logits, top_k, top_p, kept",
    [
        ([1.0, 1.0, 1.0, 1.0], 1, 1.0, {0, 1, 2, 3}),  # nothing is greater than any
        ([1.0, 1.0, 0.0, 0.0], 2, 1.0, {0, 1}),
        # two are greater than the others, which is fewer than three
        ([1.0, 1.0, 0.0, 0.0], 3, 1.0, {0, 1, 2, 3}),
        ([0.0, 0.0, 0.0, 0.0], 0, 1e-9, {0, 1, 2, 3}),
        ([0.0, 0.0, 0.0, 0.0], 0, 0.5, {0, 1, 2, 3}),
        ([1.0, 0.5, 0.0, -1.0], 1, 1.0, {0}),
        ([1.0, 0.5, 0.0, -1.0], 99, 1.0, {0, 1, 2, 3}),
        ([1.0, 0.5, 0.0, -1.0], 2**31 - 1, 1.0, {0, 1, 2, 3}),
        ([1.0, 0.5, 0.0, -1.0], 0, 1e-9, {0}),
        ([math.log(6.0), math.log(3.0), 0.0], 0, 0.61, {0, 1}),  # masses above: 0, 0.6, 0.9
        ([math.log(6.0), math.log(3.0), 0.0], 0, 0.59, {0}),
        ([math.log(6.0), math.log(3.0), 0.0], 0, 0.91, {0, 1, 2}),
        # renormalised after top-k the first has 2/3
        ([math.log(6.0), math.log(3.0), 0.0], 2, 0.65, {0}),
        ([math.log(6.0), math.log(3.0), 0.0], 2, 0.67, {0, 1}),
        ([0.0, -INF, 0.0, -INF], 0, 1.0, {0, 2}),
        ([0.0, -INF, 0.0, -INF], 4, 0.999, {0, 2}),
        ([-INF, -INF, -7.0], 0, 1.0, {2}),
    ],
)
def test_what_top_k_and_top_p_keep(logits: list[float], top_k: int, top_p: float, kept: set[int]):
    assert survivors(logits, SamplingParams(cfg_scale=1, top_k=top_k, top_p=top_p)) == kept


@pytest.mark.parametrize("logits, min_p, others, kept", MIN_P)
def test_what_min_p_keeps(logits: list[float], min_p: float, others: dict, kept: set[int]):
    params = SamplingParams(cfg_scale=1, min_p=min_p, **others)
    assert survivors(logits, params) == kept


def test_min_p_is_of_the_guided_probabilities_and_exact_at_its_border():
    cond, uncond = torch.tensor([[0.0, -1.0, -2.0]]), torch.zeros(1, 3)
    for min_p, kept in ((0.2, {0}), (0.1, {0, 1})):  # guided: 0, -2, -4
        params = rows(SamplingParams(cfg_scale=2, min_p=min_p), list(range(300)))
        pair = [t.expand(300, -1) for t in (cond, uncond)]
        assert set(sample(*pair, params, torch.zeros(300, dtype=torch.int64)).tolist()) == kept
    border = torch.tensor(math.log(0.3))
    logits = torch.stack([torch.zeros(()), border, border.nextafter(torch.tensor(-9.0))])[None]
    least = _threshold(logits, rows(SamplingParams(min_p=0.3), [0]))
    assert (logits >= least).tolist() == [[True, True, False]]


def test_top_p_of_one_keeps_a_tail_that_rounding_would_cut():
    logits = [0.0] + [-17.5] * 60  # each adds 2.5e-8 to the mass, which float32 rounds away
    params = dataclasses.replace(rows(SamplingParams(top_k=61), [0]), active=frozenset(INDEX))
    threshold = _threshold(torch.tensor([logits]), params)
    assert threshold.tolist() == [-17.5]


@pytest.mark.parametrize("top_k, top_p", [(0, 1.0), (1, 1.0), (3, 0.5), (0, 1e-9)])
@pytest.mark.parametrize("temperature", [0.0, 1e-8, 1e-30])
def test_cold_rows_take_the_maximum(temperature: float, top_k: int, top_p: float):
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        logits = torch.randn(500, generator=generator) * 10
        params = SamplingParams(cfg_scale=1, temperature=temperature, top_k=top_k, top_p=top_p)
        assert draw_one(logits, params, seed) == int(logits.argmax())


def test_temperature_zero_takes_the_lowest_of_several_maxima():
    params = SamplingParams(cfg_scale=1, temperature=0)
    assert draw_one([0.0, 3.0, 1.0, 3.0, 3.0], params) == 1
    for codes in (2048, 16384, 50000):
        logits = torch.zeros(codes)
        logits[[codes // 3, codes // 2, codes - 1]] = 1
        assert draw_one(logits, params) == codes // 3
        assert draw_one(torch.zeros(codes), params) == 0


def test_a_tiny_temperature_still_draws_among_equals():
    assert survivors([2.0, 5.0, 5.0, 1.0], SamplingParams(cfg_scale=1, temperature=1e-8)) == {1, 2}


@pytest.mark.parametrize("value", [1e30, 1.5e38, -1.5e38])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("params", [{}, {"temperature": 1e-8}, {"top_k": 2, "top_p": 0.9}])
def test_huge_logits_give_a_valid_code(value: float, scale: float, params: dict[str, float]):
    cond = torch.tensor([[0.0, value, -value, 1.0]])
    code = sample(
        cond, -cond, rows(SamplingParams(cfg_scale=scale, **params), [1]), torch.tensor([0])
    )
    assert code.tolist() == [int((cond * (-1 if scale == 0 else 1)).argmax())]


def test_a_code_that_either_half_excludes_is_never_drawn():
    cond, uncond = torch.zeros(300, 4), torch.zeros(300, 4)
    cond[:, 1] = -INF
    uncond[:, 3] = -INF
    for scale in (0.0, 1.0, 2.5):
        params = rows(SamplingParams(cfg_scale=scale), list(range(300)))
        assert set(sample(cond, uncond, params, torch.zeros(300, dtype=torch.int64)).tolist()) == {
            0,
            2,
        }


def test_one_code_is_always_itself():
    for params in (
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(top_k=1, top_p=0.1),
    ):
        assert draw_one([-3.0], params) == 0


def test_guidance_is_its_formula_in_float32():
    generator = torch.Generator().manual_seed(1)
    cond, uncond = (
        torch.randn(3, 1000, generator=generator),
        torch.randn(3, 1000, generator=generator),
    )
    scale = torch.tensor([0.0, 1.0, 4.5])
    got = guide(cond, uncond, scale)
    c, u, s = (t.numpy() for t in (cond, uncond, scale[:, None]))
    assert np.array_equal(got.numpy(), u + (c - u) * s)
    assert torch.equal(got[0], uncond[0])
    assert torch.equal(guide(cond, cond, scale), cond), "without a twin the logits are unchanged"
    half = guide(cond.bfloat16(), uncond.bfloat16(), scale)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("tokens", [1, 2, 10, 256])
def test_guidance_grows_as_its_schedule_says(tokens: int):
    ends = (0.0, 0.3, 0.7, 1.0)
    asked = [
        SamplingParams(cfg_scale=5.3, cfg_schedule=schedule, cfg_from=first, cfg_to=last)
        for schedule, first, last in itertools.product(SCHEDULES, ends, ends)
    ]
    params = RowParams.of(asked, [0] * len(asked), tokens)
    for t in range(tokens):
        at = t / max(tokens - 1, 1)
        grown = {"constant": 1.0, "linear": at, "cosine": 0.5 - 0.5 * math.cos(math.pi * at)}
        # in tenths, as 0.3 * 10 is no whole number
        on = [
            round(10 * p.cfg_from) * tokens <= 10 * t < round(10 * p.cfg_to) * tokens for p in asked
        ]
        want = [1 + 4.3 * grown[p.cfg_schedule] * o for p, o in zip(asked, on, strict=True)]
        got = guidance(params, torch.full((len(asked),), t))
        torch.testing.assert_close(got, torch.tensor(want), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 1.7, 7.35, 30.0])
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_guidance_is_exact_where_it_is_all_there_and_where_there_is_none(
    scale: float, schedule: str
):
    asked = SamplingParams(cfg_scale=scale, cfg_schedule=schedule)
    params = RowParams.of([asked, asked.replace(cfg_to=0.5)], [0, 0], 256)
    full, none = guidance(params, torch.tensor([255, 255])).tolist()
    assert full == torch.tensor(scale).item() and none == 1.0


def test_outside_its_share_of_the_codes_guidance_is_off_for_codes_and_notes():
    logits = torch.randn(4, 500, generator=torch.Generator().manual_seed(2)) * 2
    part = SamplingParams(cfg_scale=6, cfg_from=0.25, cfg_to=0.5)
    for draw_them in DRAWS:
        for position, on in enumerate((False, False, True, True, False, False, False, False)):
            pool = placed([part, SamplingParams(cfg_scale=6.0 if on else 1.0)], [position] * 2)
            pool.partner[:2], pool.positions[2:] = torch.tensor([2, 2]), position
            pool.seed[:2], pool.explain[:2] = 5, True
            draw_them(logits[[0, 0, 2, 3]], pool)
            assert pool.drawn[0, position] == pool.drawn[1, position]
            torch.testing.assert_close(pool.notes[0], pool.notes[1])


def test_sampling_leaves_its_arguments_alone():
    cond, uncond = torch.randn(2, 50), torch.randn(2, 50)
    params = rows(SamplingParams(temperature=0.7, top_k=5, top_p=0.9), [1, 2])
    positions = torch.tensor([3, 4])
    tensors = [cond, uncond, positions, params.values, params.seed]
    before = [t.clone() for t in tensors]
    first = sample(cond, uncond, params, positions)
    assert torch.equal(first, sample(cond, uncond, params, positions))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


def test_logits_that_want_a_gradient_can_be_drawn_from():
    logits = torch.zeros(1, 9, requires_grad=True)
    assert (
        0
        <= int(
            sample(
                logits,
                logits,
                rows(SamplingParams(temperature=0.5, top_k=3), [1]),
                torch.tensor([0]),
            )
        )
        < 9
    )


@pytest.mark.parametrize("by", ["seeds", "positions"])
@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 6}, {"top_p": 0.8}]
)
def test_draws_follow_the_softmax(params: dict[str, float], by: str):
    logits = np.array([1.0, 0.5, 0.0, -0.5, 2.0, 1.5, -1.0, 0.25, 0.75, -2.0])
    p = SamplingParams(cfg_scale=1, **params)
    tempered = logits / p.temperature
    expected = np.where(kept_slowly(tempered, p.top_k, p.top_p), np.exp(tempered), 0)
    count = 40_000
    many, same = torch.arange(count), torch.full((count,), 11)
    seeds, positions = (many, same) if by == "seeds" else (same, many)
    row = torch.tensor(logits, dtype=torch.float32).expand(count, -1)
    drawn = sample(row, row, rows(p, seeds.tolist()), positions)
    counts = np.bincount(drawn.numpy(), minlength=len(logits))
    assert (counts[expected == 0] == 0).all()
    kept = expected > 0
    assert stats.chisquare(counts[kept], expected[kept] / expected.sum() * count).pvalue > 1e-3


def test_draws_of_different_seeds_and_positions_are_independent():
    logits = torch.zeros(6000, 8)
    seeds = torch.arange(6000)
    params = rows(SamplingParams(cfg_scale=1), seeds.tolist())

    def at(position: int) -> np.ndarray:
        return sample(logits, logits, params, torch.full((6000,), position)).numpy()

    here, there = at(0), at(1)
    for a, b in ((here, there), (here[:-1], here[1:])):
        table = np.histogram2d(a, b, bins=8)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3


ROW_PARAMS = [
    SamplingParams(cfg_scale=3.0),
    SamplingParams(cfg_scale=1.0, temperature=0.9),
    SamplingParams(cfg_scale=1.7, top_k=40),
    SamplingParams(cfg_scale=2.0, top_p=0.8),
    SamplingParams(cfg_scale=4.0, temperature=1.3, top_k=300, top_p=0.95, min_p=0.01),
    SamplingParams(temperature=0),
    SamplingParams(temperature=0, top_k=3, top_p=0.5),
]


@pytest.mark.parametrize("codes", [37, 2048, 16384])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_does_not_depend_on_the_others(codes: int, threads: int):
    """Codes and the scores behind them, bit for bit, alone and among any rows."""
    generator = torch.Generator().manual_seed(codes)
    cond, uncond = torch.randn(2, 16, codes, generator=generator) * 3
    params = [ROW_PARAMS[i % len(ROW_PARAMS)] for i in range(16)]
    seeds = [i * 977 for i in range(16)]
    positions = torch.arange(16) * 5
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [parts_of_the_draw(cond, uncond, params, seeds, positions, [i]) for i in range(16)]
        for count in (2, 3, 4, 7, 16):
            for start in range(0, 17 - count, 3):
                pick = list(range(start, start + count))[::-1]
                together = parts_of_the_draw(cond, uncond, params, seeds, positions, pick)
                for j, i in enumerate(pick):
                    assert all(
                        torch.equal(a[j], b[0]) for a, b in zip(together, alone[i], strict=True)
                    )
    finally:
        torch.set_num_threads(before)


def parts_of_the_draw(
    cond: Tensor,
    uncond: Tensor,
    params: list[SamplingParams],
    seeds: list[int],
    positions: Tensor,
    pick: list[int],
) -> tuple[Tensor, ...]:
    """Codes, guided logits, noise and thresholds of the picked rows."""
    chosen = rows([params[i] for i in pick], [seeds[i] for i in pick])
    guided = guide(cond[pick], uncond[pick], chosen["cfg_scale"])
    noise = gumbel(chosen.seed, positions[pick], cond.shape[1])
    threshold = _threshold(guided - guided.amax(-1, keepdim=True), chosen)
    return sample(cond[pick], uncond[pick], chosen, positions[pick]), guided, noise, threshold


@pytest.mark.parametrize("params", [SamplingParams(), NEUTRAL])
def test_leaving_out_work_changes_nothing(params: SamplingParams):
    cond, uncond = torch.randn(2, 8, 500, generator=torch.Generator().manual_seed(3))
    known = rows(params, list(range(8)))
    assert known.active <= {"cfg_scale"}
    unknown = RowParams(known.values, known.weights, known.seed)
    assert unknown.active == set(INDEX)
    positions = torch.arange(8)
    assert torch.equal(
        sample(cond, uncond, known, positions), sample(cond, uncond, unknown, positions)
    )


def test_row_params_hold_what_was_asked():
    asked = [
        SamplingParams(cfg_scale=1.5, temperature=0.5, top_k=7, top_p=0.25),
        SamplingParams(cfg_scale=0, temperature=0),
    ]
    got = rows(asked, [0, 2**32 - 1])
    want = {"cfg_scale": [1.5, 0], "temperature": [0.5, 0], "top_p": [0.25, 1], "top_k": [7, 0]}
    assert {name: got[name].tolist() for name in want} == want
    assert got.values.shape == (len(SAMPLING), 2) and got.values.dtype == torch.float32
    assert got.seed.tolist() == [0, 2**32 - 1] and got.seed.dtype == torch.int64
    assert got.active == set(want)
    assert rows([SamplingParams()], [0]).active == {"cfg_scale"}
    assert rows([NEUTRAL, NEUTRAL.replace(top_k=1)], [0, 0]).active == {"top_k"}
    assert rows([], []).seed.shape == (0,)
    with pytest.raises(ValueError):
        rows(asked, [1])


@pytest.mark.parametrize("top_k", [299, 300, 301, 2**24 + 1, 2**31 - 1])
def test_a_top_k_beyond_the_vocabulary_keeps_all_and_one_below_is_exact(top_k: int):
    """As float32: exact up to 2^24, and what is above is more than any vocabulary either way."""
    logits = torch.arange(300.0).sub(299).unsqueeze(0)
    lowest = _threshold(logits, rows(SamplingParams(top_k=top_k), [0]))
    assert lowest.tolist() == [-298.0 if top_k == 299 else -299.0]


def test_idle_rows_and_broken_logits_do_not_disturb_the_others():
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
    params = rows(SamplingParams(temperature=0.8, top_k=20, top_p=0.9), [4, 5, 6])
    clean = sample(logits, logits, params, torch.tensor([0, 1, 2]))
    logits[1] = math.nan
    broken = sample(logits, logits, params, torch.tensor([0, -1, 2]))
    assert broken[[0, 2]].tolist() == clean[[0, 2]].tolist()
    assert 0 <= int(broken[1]) < 64


def test_a_moved_slider_changes_few_draws():
    """What Gumbel-max is for: neighbouring settings share most codes."""
    logits = torch.randn(2000, 256, generator=torch.Generator().manual_seed(6)) * 2
    seeds, positions = list(range(2000)), torch.zeros(2000, dtype=torch.int64)
    one, other = (
        sample(logits, logits, rows(SamplingParams(cfg_scale=1, temperature=t), seeds), positions)
        for t in (1.0, 1.02)
    )
    assert (one == other).double().mean() > 0.95


def test_new_rows_are_idle():
    fresh = Rows.new(3, 5)
    assert fresh.positions.tolist() == fresh.partner.tolist() == [-1, -1, -1]
    assert fresh.drawn.shape == (3, 5) and fresh.notes.shape == (3, 5, 13)
    before = copy.deepcopy(fresh)
    draw_rows(torch.full((3, 9), math.nan), fresh)
    assert all(
        torch.equal(a, b) for a, b in zip(vars(fresh).values(), vars(before).values(), strict=True)
    )


def placed(
    params: list[SamplingParams], positions: list[int], tokens: int = 8, told: bool = True
) -> Rows:
    """Request i in rows i and, with guidance, ``len(params) + i``; row i has seed 977 i."""
    count = len(params)
    pool = Rows.new(2 * count, tokens)
    pool.drawn.fill_(-7)
    pool.last.fill_(-7)
    for i, p in enumerate(params):
        pool.partner[i] = i if p.cfg_scale == 1 else count + i
        pool.positions[[i, int(pool.partner[i])]] = positions[i]
        pool.params[:, i] = torch.tensor(p.numbers)
    pool.seed.copy_(torch.arange(2 * count) * 977)
    pool.explain[:count:2] = told
    return pool


DRAWS = [_draw_live, _draw_all]


@pytest.mark.parametrize("draw_them", DRAWS)
def test_codes_are_those_that_were_always_drawn(draw_them: Callable[[Tensor, Rows], None]):
    pool, steps, codes = golden_draws()
    for logits in steps:
        draw_them(logits, pool)
    assert pool.drawn[: len(codes)].tolist() == codes


@pytest.mark.parametrize("draw_them", DRAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_drawn_as_by_sample(draw_them: Callable[[Tensor, Rows], None], dtype: torch.dtype):
    logits = (torch.randn(14, 300, generator=torch.Generator().manual_seed(1)) * 3).to(dtype)
    pool = placed(ROW_PARAMS, [0, 1, 2, 3, 4, 5, 7])
    pool.partner[5], pool.explain[5] = -1, True  # gone
    want = sample(
        logits[:7],
        logits[pool.partner[:7]],
        rows(ROW_PARAMS, pool.seed[:7].tolist()),
        pool.positions[:7],
    )
    before = copy.deepcopy(pool)
    draw_them(logits, pool)
    live = [0, 1, 2, 3, 4, 6]
    for i in live:
        position, code = int(before.positions[i]), int(want[i])
        for row in (i, int(pool.partner[i])):
            assert pool.positions[row] == position + 1 and pool.last[row] == code
        assert (
            [c for c in pool.drawn[i].tolist() if c != -7]
            == [code]
            == [int(pool.drawn[i, position])]
        )
        assert bool(pool.notes[i, position].any()) == bool(pool.explain[i])
    assert (pool.drawn[7:] == -7).all() and not pool.notes[[1, 3, 5, *range(7, 14)]].any()
    others = sorted({*range(14)} - {*live} - {int(pool.partner[i]) for i in live})
    assert (
        5 in others
        and torch.equal(pool.positions[others], before.positions[others])
        and (pool.last[others] == -7).all()
    )
    for name in ("partner", "params", "seed", "explain"):
        assert torch.equal(getattr(pool, name), getattr(before, name))


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(
    "params", [ROW_PARAMS, ROW_PARAMS[:1], ROW_PARAMS[:2]], ids=["mixed", "plain", "no filter"]
)
def test_both_ways_to_draw_rows_agree(params: list[SamplingParams], told: bool):
    count = len(params)
    pool = placed(params, [i % 8 for i in range(count)], told=told)
    pool.positions[-1] = 8  # the last request's twin may be anywhere
    logits = torch.randn(2 * count, 200, generator=torch.Generator().manual_seed(2)) * 3
    logits[0, 7] = math.nan
    one, other = pool, copy.deepcopy(pool)
    _draw_live(logits, one)
    _draw_all(logits, other)
    for name, tensor in vars(one).items():
        torch.testing.assert_close(
            tensor, getattr(other, name), rtol=0, atol=0, equal_nan=True, msg=name
        )


@pytest.mark.parametrize("draw_them", DRAWS)
@pytest.mark.parametrize("position", [-1, 8, 300])
def test_a_request_that_is_not_at_a_code_is_left_alone(
    draw_them: Callable[[Tensor, Rows], None], position: int
):
    pool = placed(ROW_PARAMS[:2], [3, position])
    draw_them(torch.zeros(4, 10), pool)
    assert (
        pool.positions.tolist()[:2] == [4, position]
        and pool.last[1] == -7
        and (pool.drawn[1] == -7).all()
    )


@pytest.mark.parametrize("draw_them", DRAWS)
@pytest.mark.parametrize(
    "values",
    [
        {(2, 5): math.nan},
        {(9, 0): math.inf},
        {(2, 1): -math.inf, (9, 1): -math.inf},
        {(2, 3): 3e38, (9, 3): -3e38},
    ],
)
def test_logits_that_are_not_finite_break_their_request_alone(
    draw_them: Callable[[Tensor, Rows], None], values: dict[tuple[int, int], float]
):
    logits = torch.randn(14, 64, generator=torch.Generator().manual_seed(3))
    clean, broken = (placed(ROW_PARAMS, [1] * 7) for _ in range(2))
    draw_them(logits, clean)
    for where, value in values.items():
        logits[where] = value
    draw_them(logits, broken)
    assert broken.drawn[2, 1] == broken.last[2] == broken.last[9] == BROKEN
    assert broken.notes[2, 1].isnan().all()
    assert torch.equal(broken.positions, clean.positions)
    others = [0, 1, 3, 4, 5, 6]
    assert torch.equal(broken.drawn[others], clean.drawn[others]) and torch.equal(
        broken.notes[others], clean.notes[others]
    )


@pytest.mark.parametrize("codes", [37, 2048, 40000])
@pytest.mark.parametrize("threads", [1, 3])
def test_codes_and_notes_do_not_depend_on_the_other_requests(codes: int, threads: int):
    """Bit for bit, alone and in any company, which decides what work is left out."""
    logits = torch.randn(14, codes, generator=torch.Generator().manual_seed(codes)) * 3
    pool = placed(ROW_PARAMS, [5] * 7)
    pool.explain[:7] = True
    together = copy.deepcopy(pool)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        draw_rows(logits, together)
        for chosen in ([0], [4], [6], [1, 5], [0, 2, 3]):
            some = copy.deepcopy(pool)
            some.partner[[i for i in range(7) if i not in chosen]] = -1
            draw_rows(logits, some)
            assert torch.equal(some.drawn[chosen], together.drawn[chosen])
            assert torch.equal(some.notes[chosen], together.notes[chosen])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("codes", [3, 50, 2048])
def test_notes_equal_float64(codes: int):
    generator = torch.Generator().manual_seed(codes)
    cond, uncond = torch.randn(2, 6, codes, generator=generator) * 4
    cond[:, 2], uncond[:, 2] = cond[:, 1], uncond[:, 1]  # a tie
    uncond[0] = cond[0]
    scale = torch.tensor([1.0, 1.0, 0.0, 2.0, 4.5, 30.0])
    drawn = torch.randint(codes, (6,), generator=generator)
    notes = explain(cond, uncond, guide(cond, uncond, scale), drawn).double()
    assert notes.shape == (6, 13)
    c, u = cond.double(), uncond.double()
    likely, left, right = (x.log_softmax(-1) for x in (u + (c - u) * scale[:, None].double(), c, u))
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(notes[:, 0], likely.gather(1, drawn[:, None])[:, 0], **close)
    torch.testing.assert_close(notes[:, 1], -(likely.exp() * likely).sum(-1), **close)
    torch.testing.assert_close(notes[:, 2], (left.exp() * (left - right)).sum(-1), **close)
    assert notes[0, 2] == 0
    known = min(codes, 5)
    best = torch.sort(likely, dim=-1, descending=True, stable=True)
    torch.testing.assert_close(notes[:, 3 : 3 + known], best.values[:, :known], **close)
    chosen = notes[:, 8 : 8 + known].long()
    torch.testing.assert_close(likely.gather(1, chosen), best.values[:, :known], **close)
    assert all(len({*row}) == known for row in chosen.tolist())
    assert (notes[:, 3 + known : 8] == -INF).all() and (notes[:, 8 + known :] == -1).all()


def test_notes_of_certain_and_of_equal_codes():
    certain = torch.tensor([[0.0, 200.0, 0.0, 0.0, 0.0, 0.0]])
    equal = torch.zeros(1, 6)
    one, same = (explain(x, equal, x, torch.tensor([1]))[0] for x in (certain, equal))
    assert one[:3].tolist() == pytest.approx([0.0, 0.0, math.log(6)]) and one[8:].tolist() == [
        1,
        0,
        2,
        3,
        4,
    ]
    assert same[:3].tolist() == pytest.approx([-math.log(6), math.log(6), 0.0]) and same[
        8:
    ].tolist() == [0, 1, 2, 3, 4]
    assert explain(equal, equal, equal, torch.tensor([BROKEN])).isnan().all()
