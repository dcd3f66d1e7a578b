"""AiM's own promises: step equals prefill equals forward, rows do not touch each other, and the adaLN kinds convert.

Those of decoding are ``PackedAiM``'s, too, and ``ExternalAiM``'s, here with stand-ins for its packages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from aim.config import MODELS, AiMConfig
from aim.errors import InvalidInput
from aim.models.aim import AiM, as_adaln_group, as_plain_adaln
from aim.models.external import ExternalAiM
from aim.models.packed import PackedAiM
from aim.models.state import MambaState
from tests import foreign

Make = Callable[..., AiM]
Decoder: TypeAlias = AiM | PackedAiM | ExternalAiM
Prepare = Callable[[AiM], Decoder]
KINDS = {
    "plain": {"adaln_group": False, "num_groups": 1},
    "group": {"adaln_group": True, "num_groups": 2},
    "single": {"adaln_group": True, "num_groups": 1},
}
FAR = 1e-4  # of float32 logits, whose size is about 1 to 10


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


@pytest.fixture(params=[lambda model: model, PackedAiM, ExternalAiM], ids=["eager", "packed", "external"])
def prepare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    foreign.install(monkeypatch)
    return request.param


def codes_of(model: Decoder, rows: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (rows, model.config.num_tokens), generator=generator)


def labels_of(model: Decoder, rows: int) -> Tensor:
    return torch.arange(rows) % (model.config.num_classes + 1)


def play(model: Decoder, codes: Tensor, labels: Tensor) -> tuple[Tensor, MambaState]:
    """All logits (R, T, V) step by step, and the last state."""
    cond, state = model.condition(labels), model.new_state(len(labels))
    steps = [model.step(codes[:, max(i - 1, 0)], torch.full((len(labels),), i), cond, state) for i in range(model.config.num_tokens)]
    return torch.stack(steps, 1), state


def assert_same(a: MambaState, b: MambaState) -> None:
    assert torch.equal(a.conv, b.conv)
    assert torch.equal(a.ssm, b.ssm)


@pytest.mark.parametrize("kind", KINDS)
def test_step_equals_forward(make_model: Make, prepare: Prepare, kind: str):
    model = make_model(**KINDS[kind])
    codes, labels = codes_of(model, 3), labels_of(model, 3)
    stepped, _ = play(prepare(model), codes, labels)
    want = model(codes[:, :-1], labels)
    assert want.shape == (3, model.config.num_tokens, model.config.vocab_size)
    assert stepped.dtype == want.dtype == torch.float32
    torch.testing.assert_close(stepped, want, atol=FAR, rtol=FAR)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 15])
def test_prefill_equals_forward_and_leaves_the_state_of_the_steps(make_model: Make, prepare: Prepare, length: int):
    whole = make_model()
    model = prepare(whole)
    codes, labels = codes_of(model, 3), labels_of(model, 3)
    slots = torch.tensor([4, 0, 2])
    cond, state = torch.randn(6, *model.condition(labels).shape[1:]), model.new_state(6)
    cond[slots] = model.condition(labels)
    for part in state:
        part.normal_()  # what a slot held before must not matter
    before = MambaState(state.conv.clone(), state.ssm.clone())
    want = whole(codes[:, :-1], labels)

    got = model.prefill(codes[:, :length], cond, state, slots)
    torch.testing.assert_close(got, want[:, : length + 1], atol=FAR, rtol=FAR)
    assert_same(state.gather(torch.tensor([1, 3, 5])), before.gather(torch.tensor([1, 3, 5])))

    for i in range(length + 1, model.config.num_tokens):
        logits = model.step(codes[:, i - 1], torch.full((3,), i), cond, state, slots)
        torch.testing.assert_close(logits, want[:, i], atol=FAR, rtol=FAR)


def test_prefill_refuses_a_whole_image(make_model: Make, prepare: Prepare):
    model = prepare(make_model())
    cond, state = model.condition(labels_of(model, 1)), model.new_state(1)
    model.prefill(codes_of(model, 1)[:, :15], cond, state, torch.tensor([0]))
    with pytest.raises(InvalidInput, match=r"16 codes.*fewer than num_tokens = 16"):
        model.prefill(codes_of(model, 1), cond, state, torch.tensor([0]))


def test_position_offset_moves_step_and_prefill_alone(make_model: Make):
    at_0, at_1 = make_model(), make_model(position_offset=1)
    codes, labels = codes_of(at_0, 2), labels_of(at_0, 2)
    assert torch.equal(at_0(codes[:, :-1], labels), at_1(codes[:, :-1], labels))

    shifted = make_model(position_offset=1)
    table = shifted.embeddings.position_embeddings.weight
    table[1:] = table[:-1].clone()
    torch.testing.assert_close(play(shifted, codes, labels)[0], play(at_0, codes, labels)[0])
    assert not torch.allclose(play(at_1, codes, labels)[0], play(at_0, codes, labels)[0], atol=1e-2)
    cond, slots = at_0.condition(labels), torch.arange(2)
    moved, plain = (m.prefill(codes[:, :5], cond, m.new_state(2), slots) for m in (shifted, at_0))
    torch.testing.assert_close(moved, plain)


def test_rows_of_different_ages_share_a_batch_under_permuted_slots(make_model: Make, prepare: Prepare):
    whole = make_model()
    model = prepare(whole)
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
        logits = model.step(last, positions, cond, state, slots)
        for row in (positions >= 0).nonzero().flatten().tolist():
            torch.testing.assert_close(logits[row], want[row, positions[row]], atol=FAR, rtol=FAR)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slots", [None, [3, 1, 0, 2]])
def test_an_idle_row_writes_nothing(make_model: Make, prepare: Prepare, dtype: torch.dtype, slots: list[int] | None):
    model = prepare(make_model().to_dtype(dtype))
    cond, state = model.condition(labels_of(model, 4)), model.new_state(4)
    for part in state:
        part.normal_()
    before = MambaState(state.conv.clone(), state.ssm.clone())
    model.step(torch.tensor([1, 2, 3, 4]), torch.tensor([5, -1, 0, -1]), cond, state, slots and torch.tensor(slots))
    where = slots or [0, 1, 2, 3]
    idle, busy = torch.tensor([where[1], where[3]]), torch.tensor([where[0], where[2]])
    assert_same(state.gather(idle), before.gather(idle))
    for part, old in zip(state.gather(busy), before.gather(busy), strict=True):
        assert (part != old).flatten(2).any(-1).all()


def test_position_0_reads_the_class_and_neither_the_code_nor_the_old_state(make_model: Make, prepare: Prepare):
    model = prepare(make_model())
    cond = model.condition(labels_of(model, 4))
    clean, used = model.new_state(4), model.new_state(4)
    used.conv.fill_(float("nan"))
    used.ssm.fill_(float("inf"))
    zeros = torch.zeros(4, dtype=torch.long)
    want = model.step(zeros, zeros, cond, clean)
    got = model.step(torch.tensor([5, -7, 63, 10**6]), zeros, cond, used)
    assert torch.equal(got, want)
    assert_same(used, clean)


def test_copied_slots_go_on_like_their_source(make_model: Make, prepare: Prepare):
    model = prepare(make_model())
    codes, labels = codes_of(model, 2), labels_of(model, 2)
    cond = model.condition(torch.cat([labels, labels]))
    state = model.new_state(4)
    model.prefill(codes[:, :5], cond, state, torch.tensor([0, 1]))
    state.copy(torch.tensor([0, 1]), torch.tensor([2, 3]))
    logits = model.step(codes[:, 5].repeat(2), torch.full((4,), 6), cond, state)
    assert torch.equal(logits[:2], logits[2:])
    assert_same(state.gather(torch.tensor([0, 1])), state.gather(torch.tensor([2, 3])))
    assert state.ssm.abs().amax((0, 2, 3, 4)).gt(0).all()


@pytest.mark.parametrize("kind", ["group", "single"])
def test_adaln_group_as_plain_adaln(make_model: Make, kind: str):
    model = make_model(**KINDS[kind])
    codes, labels = codes_of(model, 2), labels_of(model, 2)
    plain = as_plain_adaln(model)
    assert not plain.config.adaln_group
    torch.testing.assert_close(plain(codes[:, :-1], labels), model(codes[:, :-1], labels), atol=FAR, rtol=FAR)


def test_plain_adaln_as_adaln_group_and_back(make_model: Make):
    model = make_model(**KINDS["plain"])
    codes, labels = codes_of(model, 2), labels_of(model, 2)
    group = as_adaln_group(model)
    assert group.config.adaln_group
    assert group.config.num_groups == model.config.n_layer
    torch.testing.assert_close(group(codes[:, :-1], labels), model(codes[:, :-1], labels), atol=FAR, rtol=FAR)
    back = as_plain_adaln(group).state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_class_embeddings_condition_like_labels(make_model: Make, prepare: Prepare):
    whole = make_model()
    model = prepare(whole)
    labels = labels_of(model, 6)
    assert torch.equal(model.condition(whole.cls_embed.embedding_table(labels)), model.condition(labels))


def test_bfloat16_keeps_float32_where_it_must_and_stays_near(make_model: Make):
    exact, model = make_model(), make_model().to_dtype(torch.bfloat16)
    small = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
    ends = ("norm.weight", "norm_f.weight", "norm_final.weight", "A_log", "dt_bias", "D", "scale_shift_table")
    assert small == {name for name in model.state_dict() if name.endswith(ends)}
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.bfloat16}
    assert model.dtype == torch.bfloat16
    state = model.new_state(1)
    assert (state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.float32)

    codes, labels = codes_of(exact, 4), labels_of(exact, 4)
    want = exact(codes[:, :-1], labels)
    for got in (model(codes[:, :-1], labels), play(model, codes, labels)[0]):
        assert got.dtype == torch.float32
        assert (got - want).norm() / want.norm() < 3e-2


@torch.enable_grad()
def test_every_weight_gets_a_gradient(make_model: Make):
    for kind in KINDS.values():
        model = make_model(**kind).requires_grad_(True).train()
        codes, labels = codes_of(model, 4), labels_of(model, 4)
        logits = model(codes[:, :-1], labels)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten()).backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
        assert without == []


def wide() -> AiMConfig:
    return AiMConfig(128, 3, vocab_size=64, num_classes=10, num_tokens=16, num_groups=2)


@pytest.mark.parametrize("config", [wide(), dataclasses.replace(MODELS["aim-s"].config, num_tokens=6)], ids=["d128", "aim-s"])
def test_a_row_has_the_same_bits_alone_and_among_others(prepare: Prepare, config: AiMConfig):
    """In float32, rows padded to a multiple of 4: what the engine's promise of one image a seed stands on."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(0)
    whole = AiM(config).eval()
    for weight in whole.parameters():
        if weight.dim() > 1:
            weight.normal_(std=0.05)
    model = prepare(whole)
    rows = 16
    codes, labels = codes_of(model, rows), torch.randint(config.num_classes, (rows,), generator=generator)
    steps = min(6, config.num_tokens)

    def played(order: Tensor) -> dict[int, Tensor]:
        count = len(order)
        cond, state = model.condition(labels[order]), model.new_state(count)
        outputs = [model.step(codes[order, max(i - 1, 0)], torch.full((count,), i), cond, state) for i in range(steps)]
        made = torch.stack(outputs, 1)
        return {row: made[place] for place, row in enumerate(order.tolist())}

    alone = {row: logits for i in range(0, rows, 4) for row, logits in played(torch.arange(i, i + 4)).items()}
    for count in (4, 8, 12, 16):
        order = torch.randperm(rows, generator=generator)[:count]
        different = [row for row, logits in played(order).items() if not torch.equal(logits, alone[row])]
        assert different == [], f"{count} rows"


class OnGpu(AiM):
    """Says so, and is not."""

    device = torch.device("cuda")  # type: ignore[assignment]


@pytest.mark.parametrize("scan", ["torch", "mamba-ssm"])
def test_sequences_by_other_operations(make_model: Make, monkeypatch: pytest.MonkeyPatch, scan: str):
    foreign.install(monkeypatch)
    model = make_model()
    codes, labels = codes_of(model, 3)[:, :-1], labels_of(model, 3)
    other = OnGpu(model.config).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    want = model(codes, labels)
    assert other.use_scan(scan) is other
    torch.testing.assert_close(other(codes, labels), want, atol=FAR, rtol=FAR)
    assert torch.equal(other.use_scan("auto")(codes, labels), want)


def test_sequences_by_what_is_not_there(make_model: Make, monkeypatch: pytest.MonkeyPatch):
    model = make_model()
    with pytest.raises(InvalidInput, match="'mamba-ssm', which needs an NVIDIA GPU, and the model is on cpu; take auto or torch"):
        model.use_scan("mamba-ssm")
    with pytest.raises(InvalidInput, match="scan is 'fused'; it must be one of auto, torch, mamba-ssm"):
        model.use_scan("fused")
    foreign.install(monkeypatch, [])
    with pytest.raises(InvalidInput, match=r"neither mamba_ssm .* imports; install as requirements-cuda.txt says"):
        OnGpu(model.config).use_scan("mamba-ssm")
