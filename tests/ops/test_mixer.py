"""What a mixer may compute with: mamba-ssm's and causal-conv1d's kernels behind our signatures, as
stand-ins and, on a GPU, as they are.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.ops import conv, mixer, scan
from tests import foreign


def rows(*shape: int, seed: int = 0, device: str = "cpu") -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.float() - b.float()).norm() / (b.float().norm() + 1e-6)).item()


def sequence(
    length: int, device: str = "cpu", heads: int = 3, channels: int = 16, size: int = 16
) -> list[Tensor]:
    """x, dt, A, B, C, D; x, B and C lie side by side as a mixer has them."""
    mixed = rows(2, length, heads * channels + 2 * size, device=device)
    x, B, C = mixed.split([heads * channels, size, size], -1)
    dt = rows(2, length, heads, seed=1, device=device).abs() * 0.1 + 1e-3
    return [
        x.unflatten(-1, (heads, channels)),
        dt,
        -rows(heads, seed=2, device=device).exp(),
        B,
        C,
        rows(heads, seed=3, device=device),
    ]


def check_steps(
    steps: mixer.Steps, device: str = "cpu", dtype: torch.dtype = torch.float32, far: float = 1e-5
) -> None:
    """Six items; row 1 is always idle, row 2 now and then."""
    x, dt, A, B, C, D = sequence(6, device)
    weight, bias = (
        rows(96, 4, seed=5, device=device).to(dtype),
        rows(96, seed=6, device=device).to(dtype),
    )
    # not dense, as a slice of a projection
    items = rows(3, 6, 104, seed=7, device=device).to(dtype)[..., 8:]
    parts = {
        name: (
            rows(3, 3, 96, seed=8, device=device).to(dtype),
            rows(3, 3, 16, 16, seed=9, device=device),
        )
        for name in ("a", "b")
    }
    for t in range(6):
        idle = torch.tensor([False, True, t % 3 == 1], device=device)
        before = [part[idle].clone() for part in parts["a"]]
        got = {}
        for name, ops in (("a", steps), ("b", mixer.OURS)):
            past, state = parts[name]
            mixed = ops.conv(items[:, t], past, weight, bias, idle)
            x, B, C = mixed.float().split([48, 32, 16], -1)
            here = dt[0, t].expand(3, 3).masked_fill(idle[:, None], 0.0)
            y = ops.state(state, x.unflatten(-1, (3, 16)), here, A, B[:, :16], C, D)
            got[name] = mixed[~idle], y[~idle], past, state
        assert all(
            torch.equal(part[idle], old) for part, old in zip(parts["a"], before, strict=True)
        ), "idle rows are not written"
        for mine, wanted in zip(got["a"], got["b"], strict=True):
            assert mine.dtype == wanted.dtype and mine.shape == wanted.shape
            assert relative(mine, wanted) < far


def check_sequences(
    over: mixer.Sequences,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    far: float = 3e-5,
) -> None:
    """Values and gradients; shapes and types are ours."""
    for length in (1, 5, 70):
        x, dt, A, B, C, D = sequence(length, device)
        weight, bias = rows(96, 4, seed=5, device=device), rows(96, seed=6, device=device)
        wide = rows(2, length, 104, seed=7, device=device).to(dtype)
        results: list[list[Tensor]] = []
        for ops in (over, mixer.Sequences(conv.causal_conv, scan.scan_chunked)):
            leaves = [t.detach().clone().requires_grad_() for t in (wide, weight, bias)]
            inputs = [
                t.detach().clone().requires_grad_()
                for t in (x.to(dtype), dt, A, B.to(dtype), C.to(dtype), D)
            ]
            out = ops.conv(leaves[0][..., 8:], *leaves[1:])
            y, state = ops.scan(*inputs, need_state=True)
            short, none = ops.scan(*inputs, need_state=False)
            assert (
                state is not None
                and none is None
                and out.dtype == y.dtype == dtype
                and state.dtype == torch.float32
            )
            loss = sum(
                (t.float() * torch.sin(torch.arange(t.numel(), device=device)).view(t.shape)).sum()
                for t in (out, y, state)
            )
            grads = torch.autograd.grad(loss, leaves + inputs)
            results.append([out, y, short, state, *grads])
        for i, (mine, wanted) in enumerate(zip(*results, strict=True)):
            assert mine.shape == wanted.shape
            assert relative(mine, wanted) < far, (length, i, relative(mine, wanted))


@pytest.mark.parametrize(
    "packages",
    [foreign.PACKAGES, ("mamba_ssm",), ("causal_conv1d",)],
    ids=["both", "mamba_ssm", "causal_conv1d"],
)
class TestStandIns:
    def test_steps(self, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...]) -> None:
        foreign.install(monkeypatch, packages)
        steps = mixer.steps()
        assert (steps.state is not scan.state_step) == ("mamba_ssm" in packages)
        assert (steps.conv is not conv.conv_advance) == ("causal_conv1d" in packages)
        check_steps(steps)
        check_steps(steps, dtype=torch.bfloat16, far=1e-2)

    def test_sequences(self, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...]) -> None:
        foreign.install(monkeypatch, packages)
        over = mixer.sequences("mamba-ssm")
        assert (over.scan is not scan.parallel_scan) == ("mamba_ssm" in packages)
        assert (over.conv is not conv.causal_conv) == ("causal_conv1d" in packages)
        check_sequences(over)

    def test_what_is_missing_is_named(
        self, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...]
    ) -> None:
        foreign.install(monkeypatch, packages)
        assert set(mixer.missing()) == set(foreign.PACKAGES) - set(packages)
        assert all("Error" in why for why in mixer.missing().values())


def test_strides_that_the_convolution_does_not_take_are_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign.install(monkeypatch)
    x = rows(2, 5, 99)[..., 2:98]
    weight, bias = rows(96, 4, seed=5), rows(96, seed=6)
    assert (
        relative(
            mixer.sequences("mamba-ssm").conv(x, weight, bias), conv.causal_conv(x, weight, bias)
        )
        < 1e-5
    )


@pytest.mark.parametrize(
    "ask", [mixer.steps, lambda: mixer.sequences("mamba-ssm")], ids=["steps", "sequences"]
)
def test_with_neither_package_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]
) -> None:
    foreign.install(monkeypatch, ())
    with pytest.raises(
        InvalidInput,
        match=r"mamba_ssm \(.*Error.* nor causal_conv1d "
        r"\(.*Error.*requirements-cuda.txt.*take auto",
    ):
        ask()


def test_the_others_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign.install(monkeypatch, ())
    assert mixer.sequences() == mixer.sequences("auto") == (conv.causal_conv, scan.parallel_scan)
    check_sequences(mixer.sequences("torch"))
    with pytest.raises(InvalidInput, match="'fast'; it must be one of auto, torch, mamba-ssm"):
        mixer.sequences("fast")


def test_nothing_is_imported_before_it_is_asked_for(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    late = "mamba_ssm", "causal_conv1d", "triton", "aim.ops.mamba_ssm"
    code = (
        f"import sys, aim.models.aim.model, aim.engine.backend; print({set(late)} & "
        f"{{*sys.modules}})"
    )
    assert run_python("-c", code).stdout.strip() == "set()"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("package", foreign.PACKAGES)
def test_the_packages_themselves_on_a_gpu(package: str, dtype: torch.dtype) -> None:
    try:
        without = mixer.missing()
    except InvalidInput as error:
        pytest.skip(str(error))
    if package in without:
        pytest.skip(f"{package}: {without[package]}")
    exact = dtype == torch.float32
    theirs, over = mixer.steps(), mixer.sequences("mamba-ssm")
    if package == "mamba_ssm":
        theirs, over = theirs._replace(conv=conv.conv_advance), over._replace(conv=conv.causal_conv)
    else:
        theirs, over = theirs._replace(state=scan.state_step), over._replace(scan=scan.scan_chunked)
    with torch.inference_mode():
        check_steps(theirs, "cuda", dtype, 1e-4 if exact else 2e-2)
    tf32 = package == "mamba_ssm"  # its products of float32 are TF32
    check_sequences(over, "cuda", dtype, 1e-4 if exact and not tf32 else 2e-2)
