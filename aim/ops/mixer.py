"""What a mixer computes with: this package's own operations, or the kernels of mamba-ssm and
causal-conv1d where those import.

Either package may be there alone; the other's part is then ours. Theirs run on NVIDIA GPUs alone.
Nothing imports them before they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from aim.errors import InvalidInput
from aim.ops.conv import causal_conv, conv_advance, shifted_sum
from aim.ops.scan import parallel_scan, scan_chunked, state_step

SCANS = ("auto", "torch", "mamba-ssm")


class Steps(NamedTuple):
    """One item a row."""

    conv: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # as ops.conv.conv_advance
    # as ops.scan.state_step
    state: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class Sequences(NamedTuple):
    """Whole sequences, differentiable."""

    conv: Callable[[Tensor, Tensor, Tensor], Tensor]  # as ops.conv.causal_conv
    scan: Callable[..., tuple[Tensor, Tensor | None]]  # as ops.scan.parallel_scan


OURS = Steps(conv_advance, state_step)


def missing() -> dict[str, str]:
    """Which of the packages mamba_ssm and causal_conv1d do not import, and why. InvalidInput if
    neither does.
    """
    found = {}
    for package, load in (("mamba_ssm", _load_mamba_ssm), ("causal_conv1d", _load_causal_conv1d)):
        try:
            load()
        except (
            Exception
        ) as error:  # an extension that was built for another PyTorch fails in many ways
            found[package] = f"{type(error).__name__}: {error}".partition("\n")[0]
    if len(found) == 2:
        reasons = " nor ".join(f"{package} ({why})" for package, why in found.items())
        raise InvalidInput(
            f"mamba-ssm is asked for, but neither {reasons} imports; install as "
            "requirements-cuda.txt says, or take auto"
        )
    return found


def steps() -> Steps:
    """Of mamba-ssm and causal-conv1d, as far as they import. InvalidInput if neither does."""
    without = missing()
    from aim.ops import mamba_ssm

    return Steps(
        conv_advance if "causal_conv1d" in without else mamba_ssm.conv_advance,
        state_step if "mamba_ssm" in without else mamba_ssm.state_step,
    )


def sequences(scan: str = "auto") -> Sequences:
    """For ``scan`` "auto" what suits the input, "torch" PyTorch's operations, "mamba-ssm" both
    packages' as far as they import.

    InvalidInput for another name, or if neither package imports.
    """
    if scan not in SCANS:
        raise InvalidInput(f"scan is {scan!r}; it must be one of {', '.join(SCANS)}")
    if scan != "mamba-ssm":
        return (
            Sequences(causal_conv, parallel_scan)
            if scan == "auto"
            else Sequences(shifted_sum, scan_chunked)
        )
    without = missing()
    from aim.ops import mamba_ssm

    return Sequences(
        causal_conv if "causal_conv1d" in without else mamba_ssm.causal_conv,
        parallel_scan if "mamba_ssm" in without else mamba_ssm.parallel_scan,
    )


def _load_mamba_ssm() -> None:
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update  # noqa: F401
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # noqa: F401


def _load_causal_conv1d() -> None:
    from causal_conv1d import causal_conv1d_fn, causal_conv1d_update  # noqa: F401
