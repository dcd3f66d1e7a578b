"""What every prior and every form of its step promises: step equals prefill equals forward, and
rows do not touch each other.

``MambaSSMAiM`` is here with stand-ins for its packages.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aim.config import MODELS, AiMConfig, GPTConfig, PriorConfig
from aim.errors import InvalidInput
from aim.models.prior import build
from tests import foreign
from tests.models.decoders import CASES, FAR, KINDS, Case, apart, codes_of, labels_of, play, step_at
from tests.tiny import random_gpt, random_model


@pytest.fixture(autouse=True)
def _inference(monkeypatch: pytest.MonkeyPatch):
    foreign.install(monkeypatch)
    with torch.no_grad():
        yield


@pytest.fixture(params=CASES, ids=repr)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def assert_same(a: Any, b: Any) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def slots_of(state: Any, slots: list[int]) -> list[Tensor]:
    """What is remembered of these slots."""
    return [part[:, slots] for part in state]


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        pytest.param(c, kind, id=f"{c} {name}")
        for c in CASES
        for name, kind in (KINDS if c.make is random_model else {"": {}}).items()
    ],
)
def test_step_equals_forward(case: Case, changes: dict):
    model = case.make(**changes)
    codes, labels = codes_of(model, 3), labels_of(model, 3)
    stepped, _ = play(case.prepare(model), codes, labels)
    want = model(codes[:, :-1], labels)
    assert want.shape == (3, model.config.num_tokens, model.config.vocab_size)
    assert stepped.dtype == want.dtype == torch.float32
    torch.testing.assert_close(stepped, want, atol=FAR, rtol=FAR)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 15])
def test_prefill_equals_forward_and_leaves_the_state_of_the_steps(case: Case, length: int):
    whole = case.make()
    model = case.prepare(whole)
    codes, labels = codes_of(model, 3), labels_of(model, 3)
    slots = torch.tensor([4, 0, 2])
    cond, state = torch.randn(6, *model.condition(labels).shape[1:]), model.new_state(6)
    cond[slots] = model.condition(labels)
    for part in state:
        part.normal_()  # what a slot held before must not matter
    before = copy.deepcopy(state)
    want = whole(codes[:, :-1], labels)

    got = model.prefill(codes[:, :length], labels, state, slots)
    torch.testing.assert_close(got, want[:, : length + 1], atol=FAR, rtol=FAR)
    assert_same(slots_of(state, [1, 3, 5]), slots_of(before, [1, 3, 5]))

    for i in range(length + 1, model.config.num_tokens):
        logits = step_at(model, slots, codes[:, i - 1], torch.full((3,), i), cond, state)
        torch.testing.assert_close(logits, want[:, i], atol=FAR, rtol=FAR)


def test_prefill_refuses_a_whole_image(case: Case):
    model = case.prepare(case.make())
    labels, state = labels_of(model, 1), model.new_state(1)
    model.prefill(codes_of(model, 1)[:, :15], labels, state, torch.tensor([0]))
    with pytest.raises(InvalidInput, match=r"16 codes.*fewer than num_tokens = 16"):
        model.prefill(codes_of(model, 1), labels, state, torch.tensor([0]))


def test_rows_of_different_ages_share_a_batch_under_permuted_slots(case: Case):
    whole = case.make()
    model = case.prepare(whole)
    rows, total = 3, model.config.num_tokens
    codes, labels = codes_of(model, rows), labels_of(model, rows)
    want = whole(codes[:, :-1], labels)
    slots, starts = torch.tensor([2, 0, 4]), torch.tensor([0, 3, 8])
    state = model.new_state(5)
    cond = torch.zeros(5, *model.condition(labels).shape[1:])
    cond[slots] = model.condition(labels)
    for now in range(total + int(starts.max())):
        positions = now - starts
        positions = torch.where(positions < total, positions, torch.full_like(positions, -1))
        last = codes[torch.arange(rows), (positions - 1).clamp(min=0)]
        logits = step_at(model, slots, last, positions, cond, state)
        for row in (positions >= 0).nonzero().flatten().tolist():
            torch.testing.assert_close(logits[row], want[row, positions[row]], atol=FAR, rtol=FAR)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_idle_row_writes_nothing(case: Case, dtype: torch.dtype):
    model = case.prepare(case.make().to_dtype(dtype))
    cond, state = model.condition(labels_of(model, 4)), model.new_state(4)
    for part in state:
        part.normal_()
    before = copy.deepcopy(state)
    model.step(torch.tensor([1, 2, 3, 4]), torch.tensor([5, -1, 0, -1]), cond, state)
    assert_same(slots_of(state, [1, 3]), slots_of(before, [1, 3]))
    for part, old in zip(slots_of(state, [0, 2]), slots_of(before, [0, 2]), strict=True):
        assert (part != old).flatten(2).any(-1).all()


def test_position_0_reads_the_class_and_neither_the_code_nor_the_old_state(case: Case):
    model = case.prepare(case.make())
    cond = model.condition(labels_of(model, 4))
    clean, used = model.new_state(4), model.new_state(4)
    for part, value in zip(used, (torch.nan, torch.inf), strict=True):
        part.fill_(value)
    zeros = torch.zeros(4, dtype=torch.long)
    want = model.step(zeros, zeros, cond, clean)
    got = model.step(torch.tensor([5, -7, 63, 10**6]), zeros, cond, used)
    assert torch.equal(got, want)
    assert_same(used, clean)


def test_copied_slots_go_on_like_their_source(case: Case):
    model = case.prepare(case.make())
    codes, labels = codes_of(model, 2), labels_of(model, 2)
    cond = model.condition(torch.cat([labels, labels]))
    state = model.new_state(4)
    model.prefill(codes[:, :5], labels, state, torch.tensor([0, 1]))
    state.copy(torch.tensor([0, 1]), torch.tensor([2, 3]))
    logits = model.step(codes[:, 5].repeat(2), torch.full((4,), 6), cond, state)
    assert torch.equal(logits[:2], logits[2:])
    assert_same(slots_of(state, [0, 1]), slots_of(state, [2, 3]))
    assert list(state)[1].abs().amax((0, 2, 3, 4)).gt(0).all()


def test_class_embeddings_condition_like_labels(case: Case):
    whole = case.make()
    model = case.prepare(whole)
    labels = labels_of(model, 6)
    [table] = [weight for name, weight in whole.named_parameters() if "embedding_table" in name]
    assert torch.equal(model.condition(table[labels]), model.condition(labels))
    codes, slots = codes_of(model, 6)[:, :5], torch.arange(6)
    by_label, by_embedding = (
        model.prefill(codes, given, model.new_state(6), slots) for given in (labels, table[labels])
    )
    assert torch.equal(by_label, by_embedding)


@pytest.mark.parametrize(
    ("make", "kept"),
    [(random_model, (torch.bfloat16, torch.float32)), (random_gpt, (torch.bfloat16,) * 2)],
)
def test_bfloat16_keeps_float32_where_it_must_and_stays_near(make: Callable, kept: tuple):
    exact, model = make(), make().to_dtype(torch.bfloat16)
    small = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
    ends = (
        "norm.weight",
        "norm_f.weight",
        "norm_final.weight",
        "A_log",
        "dt_bias",
        "D",
        "scale_shift_table",
    )
    assert small == {name for name in model.state_dict() if name.endswith(ends)}
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.bfloat16}
    assert model.dtype == torch.bfloat16
    assert tuple(part.dtype for part in model.new_state(1)) == kept

    codes, labels = codes_of(exact, 4), labels_of(exact, 4)
    want = exact(codes[:, :-1], labels)
    for got in (model(codes[:, :-1], labels), play(model, codes, labels)[0]):
        assert got.dtype == torch.float32
        assert apart(got, want) < 3e-2


@pytest.mark.parametrize(
    ("make", "changes"), [*((random_model, kind) for kind in KINDS.values()), (random_gpt, {})]
)
@torch.enable_grad()
def test_every_weight_gets_a_gradient(make: Callable, changes: dict):
    model = make(**changes).requires_grad_(True).train()
    codes, labels = codes_of(model, 4), labels_of(model, 4)
    logits = model(codes[:, :-1], labels)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten()).backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert without == []


WIDE = {
    random_model: {
        "d128": AiMConfig(128, 3, vocab_size=64, num_classes=10, num_tokens=16, num_groups=2),
        "aim-s": dataclasses.replace(MODELS["aim-s"].config, num_tokens=6),
    },
    random_gpt: {
        "d128": GPTConfig(128, 3, 4, vocab_size=64, num_classes=10, num_tokens=16, multiple_of=32),
        "gpt-s": dataclasses.replace(MODELS["gpt-s"].config, num_tokens=9),
    },
}


@pytest.mark.parametrize(
    ("case", "config"),
    [
        pytest.param(case, config, id=f"{case} {name}")
        for case in CASES
        for name, config in WIDE[case.make].items()
    ],
)
def test_a_row_has_the_same_bits_alone_and_among_others(case: Case, config: PriorConfig):
    """In float32, rows padded to a multiple of 4: what the engine's promise of one image a seed
    stands on.
    """
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(0)
    whole = build(config).eval()
    for weight in whole.parameters():
        if weight.dim() > 1:
            weight.normal_(std=0.05)
    model = case.prepare(whole)
    rows = 16
    codes, labels = (
        codes_of(model, rows),
        torch.randint(config.num_classes, (rows,), generator=generator),
    )

    def played(order: Tensor) -> dict[int, Tensor]:
        made, _ = play(model, codes[order], labels[order], steps=6)
        return {row: made[place] for place, row in enumerate(order.tolist())}

    alone = {
        row: logits
        for i in range(0, rows, 4)
        for row, logits in played(torch.arange(i, i + 4)).items()
    }
    for count in (4, 8, 12, 16):
        order = torch.randperm(rows, generator=generator)[:count]
        different = [
            row for row, logits in played(order).items() if not torch.equal(logits, alone[row])
        ]
        assert different == [], f"{count} rows"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_however_old_the_others_are(case: Case, dtype: torch.dtype):
    """A hundred items, which a cache is not read to the end of where nobody has as many."""
    model = case.prepare(case.make(num_tokens=100).to_dtype(dtype))
    codes, labels = codes_of(model, 4), labels_of(model, 4)
    want, _ = play(model, codes, labels)
    ages = torch.tensor([0, 20, 47, 83])  # of each row, when the first one begins
    cond, state = model.condition(labels), model.new_state(4)
    for now in range(-83, 100):
        positions = (now + ages).clamp(min=-1)
        positions[positions >= 100] = -1
        logits = model.step(
            codes[torch.arange(4), (positions - 1).clamp(min=0)], positions, cond, state
        )
        for row in (positions >= 0).nonzero().flatten().tolist():
            assert torch.equal(logits[row], want[row, positions[row]]), (row, now)
