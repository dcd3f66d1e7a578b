"""Activations: the usual functions, and on a CPU the same bits wherever an element lies."""

import pytest
import torch
import torch.nn.functional as F

from aim.ops.activation import silu, softplus

PAIRS = [(silu, F.silu), (softplus, F.softplus)]


@pytest.mark.parametrize("ours, usual", PAIRS)
def test_equals_the_usual_function(ours, usual):
    x = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, -0.0, 1e-30, -1e-30])])
    torch.testing.assert_close(ours(x).double(), usual(x.double()), rtol=1e-6, atol=1e-30)
    assert ours(torch.tensor([-1e30, 1e30])).isfinite().all()


@pytest.mark.parametrize("ours, usual", PAIRS)
def test_gradients_are_the_usual_ones(ours, usual):
    x = torch.linspace(-9, 9, 100, dtype=torch.float64).add(0.01).requires_grad_()
    mine, wanted = (torch.autograd.grad(f(x).sum(), x)[0] for f in (ours, usual))
    torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("ours", [silu, softplus])
def test_an_element_has_the_same_bits_in_any_company(ours):
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 4
    whole = ours(x)
    for size in (1, 3, 4, 12, 16, 17, 48, 100):
        parts = [ours(part.clone()) for part in x.split(size)]
        assert torch.equal(torch.cat(parts), whole), size
