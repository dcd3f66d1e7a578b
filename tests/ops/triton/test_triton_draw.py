"""The fused draw against its PyTorch twin and float64, with what it must not touch poisoned
first.
"""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aim.config import SamplingParams
from aim.ops import draw
from aim.sampling import BROKEN, Rows, _draw_all, _draw_live, draw_rows
from aim.schedules import SCHEDULES
from tests.draws import MIN_P, golden_draws

pytest.importorskip("triton", reason="Triton is not installed")
import triton
import triton.language as tl

from aim.ops.triton import draw as drawing
from aim.ops.triton import noise

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
DTYPES = (torch.float32, torch.bfloat16)
POISON = -77

# the interpreter computes with NumPy
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@triton.jit
def uniform_kernel(seeds, positions, out, V, BLOCK: tl.constexpr):
    row, codes = tl.program_id(0), tl.arange(0, BLOCK)
    u = noise.uniform(codes, tl.load(seeds + row), tl.load(positions + row))
    tl.store(out + row * V + codes, u, mask=codes < V)


@triton.jit
def gumbel_kernel(u, out, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, noise.gumbel(tl.load(u + i, mask=i < count, other=0.5)), mask=i < count)


def uniforms(seeds: Tensor, positions: Tensor, codes: int) -> Tensor:
    out = torch.full((len(seeds), codes), math.nan, device=DEVICE)
    block = triton.next_power_of_2(codes)
    uniform_kernel[(len(seeds),)](
        seeds.to(DEVICE), positions.to(DEVICE), out, codes, block, enable_fp_fusion=False
    )
    return out.cpu()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 2**31 - 1, 2**31, 2**32 - 1])),
            st.integers(0, 2**20),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([1, 37, 2032]),
)
def test_uniforms_are_those_of_pytorch_bit_for_bit(rows: list[tuple[int, int]], codes: int):
    seeds, positions = torch.tensor(rows).T.contiguous()
    assert torch.equal(uniforms(seeds, positions, codes), draw.uniform(seeds, positions, codes))


def test_a_million_uniforms_bit_for_bit():
    seeds = torch.randint(2**32, (64,), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(64) * 37
    assert torch.equal(uniforms(seeds, positions, 16384), draw.uniform(seeds, positions, 16384))


def test_gumbel_is_accurate_wherever_the_hash_falls():
    near = [torch.arange(max(0, 2**k - 300), min(2**k + 300, 2**32)) for k in range(33)]
    quarters = [torch.arange(k * 2**30 - 300, k * 2**30 + 300) for k in (1, 2, 3)]
    anywhere = torch.randint(2**32, (200_000,), generator=torch.Generator().manual_seed(1))
    hashed = torch.cat([*near, *quarters, anywhere])
    u = hashed.float().add(0.5).mul(2.0**-32).clamp(max=draw.BELOW_ONE)
    out = torch.full_like(u, math.nan, device=DEVICE)
    gumbel_kernel[(triton.cdiv(len(u), 4096),)](
        u.to(DEVICE), out, len(u), 4096, enable_fp_fusion=False
    )
    exact = -(-torch.log1p(-u.double())).log()
    assert out.isfinite().all()
    torch.testing.assert_close(out.cpu().double(), exact, rtol=3e-7, atol=2e-7)


Request = tuple[SamplingParams, int, int, bool]  # parameters, seed, position, whether to explain


def place(requests: list[Request], tokens: int, gaps: bool = False) -> Rows:
    """Rows of these requests, poisoned where the draw is to write: the conditional ones first, then
    the others, reversed.
    """
    guided = [i for i, (params, *_) in enumerate(requests) if params.cfg_scale != 1]
    count = len(requests) + len(guided)
    rows = Rows.new(count + 3 if gaps else count, tokens)
    rows.drawn.fill_(POISON)
    rows.last.fill_(POISON)
    rows.notes.fill_(POISON)
    twins = dict(zip(guided, range(count - 1, len(requests) - 1, -1), strict=True))
    for i, (params, seed, position, explain) in enumerate(requests):
        for row in (i, twins.get(i, i)):
            rows.positions[row] = position
        rows.partner[i] = twins.get(i, i)
        rows.params[:, i] = torch.tensor(params.numbers)
        rows.seed[i], rows.explain[i] = seed, explain
    return rows


def fused(logits: Tensor, rows: Rows) -> Rows:
    """``rows`` after a draw by the kernel; they themselves stay."""
    after = Rows(**{name: tensor.to(DEVICE, copy=True) for name, tensor in vars(rows).items()})
    drawing.draw_fused(logits.to(DEVICE), **vars(after))
    return Rows(**{name: tensor.cpu() for name, tensor in vars(after).items()})


def to_gpu(rows: Rows) -> Rows:
    return Rows(**{name: tensor.cuda() for name, tensor in vars(rows).items()})


def assert_same(a: Rows, b: Rows) -> None:
    for name, tensor in vars(a).items():
        if name == "notes":
            torch.testing.assert_close(tensor, b.notes, rtol=1e-5, atol=3e-6, equal_nan=True)
        else:
            assert torch.equal(tensor, getattr(b, name)), name


def compare(logits: Tensor, rows: Rows) -> Rows:
    """Draw with the kernel and with both forms of the twin, which must agree in everything."""
    got = fused(logits, rows)
    for twin in (_draw_all, _draw_live):
        want = copy.deepcopy(rows)
        twin(logits, want)
        assert_same(want, got)
    return got


MIXED = [
    SamplingParams(scale, temperature, top_k, top_p, (0, 0, 0.02, 0.3, 1)[i % 5])
    for i, (temperature, top_k, top_p, scale) in enumerate(
        itertools.product((0, 1e-30, 1, 2), (0, 1, 5, 10**6), (1, 0.9, 0.01), (3.0, 1.0))
    )
]


@pytest.mark.parametrize(
    "codes, stride, dtype",
    [
        (64, 5, torch.bfloat16),
        (100, 1, torch.float32),
        (2032, 7, torch.float32),
        (2032, 7, torch.bfloat16),
        *((n, by, dtype) for n, by in ((16384, 1), (65536, 5)) for dtype in DTYPES if CUDA),
    ],
)
def test_every_mixture_in_one_batch_equals_the_twin(codes: int, stride: int, dtype: torch.dtype):
    seeds = itertools.cycle([0, 2**32 - 1, 2**31, 12345])
    requests = [
        (params, next(seeds), i % 4, i % 3 == 0) for i, params in enumerate(MIXED[::stride])
    ]
    rows = place(requests, tokens=6)
    generator = torch.Generator().manual_seed(codes)
    for _ in range(2):
        logits = (torch.randn(len(rows.last), codes, generator=generator) * 3).to(dtype)
        before, rows = rows, compare(logits, rows)
        assert torch.equal(rows.positions, before.positions + 1)
        assert ((rows.last >= 0) & (rows.last < codes)).all()
        assert torch.equal(rows.last[rows.partner], rows.last) or len(rows.last) > len(requests)
    assert (rows.drawn != POISON).sum() == 2 * len(requests), (
        "one code a request and a step, none elsewhere"
    )
    assert ((rows.notes != POISON).all(-1).sum(-1) == 2 * rows.explain).all()


# multiples of 1/4 make ties common
quarters = st.integers(-24, 24).map(lambda n: n / 4)
some_params = st.builds(
    SamplingParams,
    cfg_scale=st.sampled_from([0.0, 1.0, 2.0, 5.0]),
    temperature=st.sampled_from([0.0, 1e-30, 0.25, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 3, 7, 50]),
    top_p=st.sampled_from([1e-9, 0.1, 0.45, 0.9, 0.999, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 24), st.lists(some_params, min_size=1, max_size=4))
def test_any_small_batch_equals_the_twin(
    data: st.DataObject, codes: int, params: list[SamplingParams]
):
    requests = [
        (
            p,
            data.draw(st.integers(0, 2**32 - 1)),
            data.draw(st.integers(0, 3)),
            data.draw(st.booleans()),
        )
        for p in params
    ]
    rows = place(requests, tokens=4)
    values = data.draw(
        st.lists(quarters, min_size=codes * len(rows.last), max_size=codes * len(rows.last))
    )
    compare(torch.tensor(values).view(-1, codes), rows)


def survivors(logits: list[float], params: SamplingParams) -> set[int]:
    """Every code that is drawn when the noise is on its side."""
    seeds = torch.arange(5000)
    noise = draw.gumbel(seeds, torch.zeros_like(seeds), len(logits))
    first, second = noise.topk(2).values.unbind(-1)
    lead = noise.where(noise == first[:, None], -math.inf) - second[:, None]
    favour = lead.max(0)  # of each code, the seed that favours it most
    assert favour.values.min() > max(logits) - min(logits)
    rows = place([(params, seed, 0, False) for seed in favour.indices.tolist()], tokens=1)
    drawn = fused(torch.tensor(logits).expand(len(logits), -1).contiguous(), rows).last.tolist()
    return set(drawn)


@pytest.mark.parametrize(
    "logits, top_k, top_p, kept",
    [
        ([1.0, 1.0, 1.0, 1.0], 1, 1.0, {0, 1, 2, 3}),  # nothing is greater than any
        ([1.0, 1.0, 0.0, 0.0], 2, 1.0, {0, 1}),
        # two are greater than the others, which is fewer than three
        ([1.0, 1.0, 0.0, 0.0], 3, 1.0, {0, 1, 2, 3}),
        ([0.0, 0.0, 0.0, 0.0], 0, 1e-9, {0, 1, 2, 3}),
        ([1.0, 0.5, 0.0, -1.0], 1, 1.0, {0}),
        ([1.0, 0.5, 0.0, -1.0], 2**31 - 1, 1.0, {0, 1, 2, 3}),
        ([1.0, 0.5, 0.0, -1.0], 0, 1e-9, {0}),
        ([math.log(6.0), math.log(3.0), 0.0], 0, 0.61, {0, 1}),  # masses above: 0, 0.6, 0.9
        ([math.log(6.0), math.log(3.0), 0.0], 0, 0.59, {0}),
        # renormalised after top-k the first has 2/3
        ([math.log(6.0), math.log(3.0), 0.0], 2, 0.65, {0}),
        ([math.log(6.0), math.log(3.0), 0.0], 2, 0.67, {0, 1}),
    ],
)
def test_what_top_k_and_top_p_keep(logits: list[float], top_k: int, top_p: float, kept: set[int]):
    assert survivors(logits, SamplingParams(cfg_scale=1, top_k=top_k, top_p=top_p)) == kept


@pytest.mark.parametrize("logits, min_p, others, kept", MIN_P)
def test_what_min_p_keeps(logits: list[float], min_p: float, others: dict, kept: set[int]):
    assert survivors(logits, SamplingParams(cfg_scale=1, min_p=min_p, **others)) == kept


def test_every_schedule_at_every_position_equals_the_twin():
    asked = [
        SamplingParams(3.7, cfg_schedule=schedule, cfg_from=first, cfg_to=last)
        for schedule in SCHEDULES
        for first, last in ((0.0, 1.0), (0.3, 1.0), (0.3, 0.7), (0.7, 0.3))
    ]
    requests = [(params, 31 * i + t, t, True) for i, params in enumerate(asked) for t in range(5)]
    rows = place(requests, tokens=5)
    logits = torch.randn(len(rows.last), 70, generator=torch.Generator().manual_seed(3)) * 2
    compare(logits, rows)


def test_temperature_zero_takes_the_lowest_of_several_maxima():
    logits = torch.zeros(2, 3000)
    logits[0, [1000, 1500, 2999]] = 1
    rows = place(
        [(SamplingParams(cfg_scale=1, temperature=0, top_k=3, top_p=0.5), 5, 0, False)] * 2,
        tokens=1,
    )
    assert compare(logits, rows).last.tolist() == [1000, 0]


@pytest.mark.parametrize("value", [1e30, 1.5e38, -1.5e38])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_huge_logits_give_a_valid_code(value: float, scale: float):
    cond = torch.tensor([0.0, value, -value, 1.0])
    rows = place([(SamplingParams(cfg_scale=scale, top_k=2), 1, 0, False)], tokens=1)
    logits = torch.stack([cond, -cond])[: len(rows.last)]
    assert compare(logits, rows).last[0] == int((cond * (-1 if scale == 0 else 1)).argmax())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [1, 6])  # with its twin in row 6
def test_a_logit_that_is_not_finite_breaks_its_own_request_alone(value: float, row: int):
    requests = [
        (
            SamplingParams(cfg_scale=2.0 if i == 1 else 1.0, top_k=9, top_p=0.9, temperature=0.8),
            i,
            i,
            True,
        )
        for i in range(6)
    ]
    rows = place(requests, tokens=6)
    logits = torch.randn(7, 100, generator=torch.Generator().manual_seed(4))
    clean = fused(logits, rows)
    logits[row, 99] = value
    broken = compare(logits, rows)
    assert broken.last[[1, 6]].tolist() == [BROKEN, BROKEN] and broken.drawn[1, 1] == BROKEN
    assert broken.notes[1, 1].isnan().all()
    others = [0, 2, 3, 4, 5]
    assert torch.equal(broken.drawn[others], clean.drawn[others]) and torch.equal(
        broken.notes[others], clean.notes[others]
    )
    assert torch.equal(broken.positions, clean.positions)


def test_codes_are_those_that_were_always_drawn():
    rows, steps, codes = golden_draws()
    for logits in steps:
        rows = fused(logits, rows)
    assert rows.drawn[: len(codes)].tolist() == codes


def test_rows_that_are_nobodys_or_done_are_left_alone():
    # of 4 codes
    requests = [(SamplingParams(), i, position, True) for i, position in enumerate((0, 4, -1, 3))]
    rows = place(requests, tokens=4, gaps=True)
    rows.positions[-3:] = torch.tensor([2, -1, 0])
    logits = torch.randn(len(rows.last) - 1, 100, generator=torch.Generator().manual_seed(6))
    logits[8] = math.nan  # nobody's
    after = compare(logits, rows)
    drawn = [0, 3, 4, 7]  # two requests with their twins
    idle = [i for i in range(len(rows.last)) if i not in drawn]
    shared = ("params", "weights")
    assert all(torch.equal(getattr(after, name), getattr(rows, name)) for name in shared)
    for name, tensor in vars(rows).items():
        if name not in shared:
            assert torch.equal(getattr(after, name)[idle], tensor[idle]), name
    assert (after.last[drawn] >= 0).all() and after.positions[drawn].tolist() == [1, 4, 4, 1]
    assert (after.drawn[0] != POISON).tolist() == [True, False, False, False]


def test_a_row_is_the_same_alone_and_among_others():
    requests = [(params, 977 * i, i % 4, True) for i, params in enumerate(MIXED[::9])]
    together_rows = place(requests, tokens=4)
    logits = (
        torch.randn(len(together_rows.last), 100, generator=torch.Generator().manual_seed(7)) * 2
    )
    together = fused(logits, together_rows)
    for i, request in enumerate(requests):
        rows = place([request], tokens=4)
        alone = fused(logits[[i, int(together_rows.partner[i])]][: len(rows.last)], rows)
        assert torch.equal(alone.drawn[0], together.drawn[i])
        assert torch.equal(alone.notes[0], together.notes[i])


def test_seed_and_position_each_change_the_draw():
    def codes(seeds: list[int], positions: list[int]) -> list[int]:
        requests = [
            (SamplingParams(cfg_scale=1), s, p, False)
            for s, p in zip(seeds, positions, strict=True)
        ]
        return fused(torch.zeros(len(requests), 2032), place(requests, tokens=40)).last.tolist()

    assert len({*codes(list(range(40)), [3] * 40)}) > 35
    assert len({*codes([3] * 40, list(range(40)))}) > 35


@pytest.mark.parametrize("codes", [3, 100, 2032])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_notes_equal_float64(codes: int, scale: float):
    requests = [
        (SamplingParams(scale, temperature, 20, 0.9), i, 1, True)
        for i, temperature in enumerate((0, 0.5, 2))
    ]
    rows = place(requests, tokens=2)
    logits = torch.randn(len(rows.last), codes, generator=torch.Generator().manual_seed(codes)) * 4
    logits[:3, 1] = logits[:3, 2]
    after = fused(logits, rows)
    cond, uncond = logits[:3].double(), logits[rows.partner[:3]].double()
    likely = (uncond + (cond - uncond) * scale).log_softmax(-1)
    left, right = cond.log_softmax(-1), uncond.log_softmax(-1)
    notes = after.notes[:3, 1].double()
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(notes[:, 0], likely.gather(1, after.last[:3, None])[:, 0], **close)
    torch.testing.assert_close(notes[:, 1], -(likely.exp() * likely).sum(-1), **close)
    torch.testing.assert_close(notes[:, 2], (left.exp() * (left - right)).sum(-1), **close)
    if scale == 1:
        assert (notes[:, 2] == 0).all()
    best = likely.sort(dim=-1, descending=True, stable=True)
    known = min(codes, 5)
    torch.testing.assert_close(notes[:, 3 : 3 + known], best.values[:, :known], **close)
    chosen = notes[:, 8 : 8 + known].long()
    torch.testing.assert_close(likely.gather(1, chosen), best.values[:, :known], **close)
    assert all(len({*row}) == known for row in chosen.tolist())
    assert (notes[:, 3 + known : 8] == -math.inf).all() and (notes[:, 8 + known :] == -1).all()


def test_equally_likely_codes_are_noted_lowest_first():
    rows = place([(SamplingParams(cfg_scale=1), 0, 0, True)], tokens=1)
    assert compare(torch.zeros(1, 70), rows).notes[0, 0, 8:].tolist() == [0, 1, 2, 3, 4]


def test_what_it_does_not_support_it_says():
    assert not drawing.supports(torch.zeros(1, 8)), "a CPU"
    # more codes than a program holds, more rows than slots
    for shape in ((1, drawing.LONGEST + 1), (2, 8)):
        with pytest.raises(AssertionError):
            drawing.draw_fused(torch.zeros(shape), **vars(Rows.new(1, 1)))


@pytest.mark.gpu
@pytest.mark.parametrize("draw_them", [draw_rows, _draw_all])
def test_a_captured_draw_serves_every_request(draw_them: Callable[[Tensor, Rows], None]):
    """Without waiting for the device, and with what changes between replays read by them."""
    requests = [(params, i, i % 4, i % 2 == 0) for i, params in enumerate(MIXED[::3])]
    static = to_gpu(place(requests, tokens=8))
    logits = torch.empty(len(static.last), 2048, device="cuda")
    # compiled, and the noise's constants made, before the capture
    draw_them(logits.zero_(), static)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.graph(graph):
            draw_them(logits, static)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    generator = torch.Generator().manual_seed(8)
    for shift in range(4):
        changed = place(
            [
                (p, seed + shift, position, told)
                for p, seed, position, told in requests[shift:] + requests[:shift]
            ],
            tokens=8,
        )
        for name, tensor in vars(changed).items():
            getattr(static, name).copy_(tensor)
        values = torch.randn(logits.shape, generator=generator) * 3
        logits.copy_(values)
        graph.replay()
        _draw_live(values, changed)
        assert_same(changed, Rows(**{name: tensor.cpu() for name, tensor in vars(static).items()}))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_512_rows_of_16384_codes(dtype: torch.dtype):
    requests = [
        (
            SamplingParams(2.0, 0.9, 500 * (i % 3), 1.0 - 0.1 * (i % 4)),
            i * 7919,
            i % 256,
            i % 50 == 0,
        )
        for i in range(256)
    ]
    rows = place(requests, tokens=256)
    compare(
        (torch.randn(512, 16384, generator=torch.Generator().manual_seed(9)) * 3).to(dtype), rows
    )


@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    """The last of so many slots that a note of it lies further than 2^31 from the first."""
    slots, tokens = 1 << 20, 160  # 8.7 GB of notes
    rows = Rows.new(slots, tokens, "cuda")
    row = slots - 1
    rows.partner[row], rows.positions[row], rows.explain[row] = row, tokens - 1, True
    logits = torch.zeros(1, 64, device="cuda").expand(slots, 64)
    drawing.draw_fused(logits, **vars(rows))
    assert rows.drawn[row, -1] == rows.last[row]
    assert rows.notes[row, -1, 1].item() == pytest.approx(math.log(64))
    assert int(rows.notes.count_nonzero()) == 11, (
        "one note, in which the divergence and the likeliest code are 0"
    )
