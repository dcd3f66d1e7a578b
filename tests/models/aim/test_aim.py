"""AiM's own promises, beside those of every prior: positions, adaLN kinds that convert, sequences
by other kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from aim.errors import InvalidInput
from aim.models.aim.adaln import as_adaln_group, as_plain_adaln
from aim.models.aim.model import AiM
from tests import foreign
from tests.models.decoders import FAR, KINDS, codes_of, labels_of, play

Make = Callable[..., AiM]


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def test_position_offset_moves_step_and_prefill_alone(make_model: Make):
    at_0, at_1 = make_model(), make_model(position_offset=1)
    codes, labels = codes_of(at_0, 2), labels_of(at_0, 2)
    assert torch.equal(at_0(codes[:, :-1], labels), at_1(codes[:, :-1], labels))

    shifted = make_model(position_offset=1)
    table = shifted.embeddings.position_embeddings.weight
    table[1:] = table[:-1].clone()
    torch.testing.assert_close(play(shifted, codes, labels)[0], play(at_0, codes, labels)[0])
    assert not torch.allclose(play(at_1, codes, labels)[0], play(at_0, codes, labels)[0], atol=1e-2)
    slots = torch.arange(2)
    moved, plain = (m.prefill(codes[:, :5], labels, m.new_state(2), slots) for m in (shifted, at_0))
    torch.testing.assert_close(moved, plain)


@pytest.mark.parametrize("kind", ["group", "single"])
def test_adaln_group_as_plain_adaln(make_model: Make, kind: str):
    model = make_model(**KINDS[kind])
    codes, labels = codes_of(model, 2), labels_of(model, 2)
    plain = as_plain_adaln(model)
    assert not plain.config.adaln_group
    torch.testing.assert_close(
        plain(codes[:, :-1], labels), model(codes[:, :-1], labels), atol=FAR, rtol=FAR
    )


def test_plain_adaln_as_adaln_group_and_back(make_model: Make):
    model = make_model(**KINDS["plain"])
    codes, labels = codes_of(model, 2), labels_of(model, 2)
    group = as_adaln_group(model)
    assert group.config.adaln_group
    assert group.config.num_groups == model.config.n_layer
    torch.testing.assert_close(
        group(codes[:, :-1], labels), model(codes[:, :-1], labels), atol=FAR, rtol=FAR
    )
    back = as_plain_adaln(group).state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


class OnGpu(AiM):
    """Says so, and is not."""

    device = torch.device("cuda")  # type: ignore[assignment]


@pytest.mark.parametrize("scan", ["torch", "mamba-ssm"])
def test_sequences_by_other_operations(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, scan: str
):
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
    with pytest.raises(
        InvalidInput,
        match="'mamba-ssm', which needs an NVIDIA GPU, and the model is on cpu; take auto or torch",
    ):
        model.use_scan("mamba-ssm")
    with pytest.raises(
        InvalidInput, match="scan is 'fused'; it must be one of auto, torch, mamba-ssm"
    ):
        model.use_scan("fused")
    foreign.install(monkeypatch, [])
    with pytest.raises(
        InvalidInput, match=r"neither mamba_ssm .* imports; install as requirements-cuda.txt says"
    ):
        OnGpu(model.config).use_scan("mamba-ssm")
