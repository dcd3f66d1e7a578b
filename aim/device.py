"""Where to compute, and in what: names from outside to PyTorch's devices and dtypes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from aim.errors import InvalidInput
from aim.settings import DTYPES, Settings


def has_tiles() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (AMX): a few rows cost little more than one."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())  # private


def own_device(name: str, settings: Settings) -> str:
    """The name of this process's device: where torchrun started several, each has a GPU of its
    own.
    """
    if settings.world > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{settings.local_rank}"
    return name


def pick_device(name: str | torch.device) -> torch.device:
    """The device called ``name``, the best there is for "auto"; InvalidInput if it is not here."""
    name = str(name)
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise InvalidInput(f"device is {name!r}; it must be auto, cpu, cuda, cuda:<number> or mps")
    here = {"cpu": True, "cuda": cuda and int(index or 0) < torch.cuda.device_count(), "mps": mps}[
        kind
    ]
    if not here:
        raise InvalidInput(
            f"there is no device {name!r} here, or this PyTorch ({torch.__version__}) cannot use "
            "it; try auto or cpu"
        )
    return torch.device(name)


def pick_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype called ``name``; for "auto" bfloat16 where ``device`` computes in it natively, else
    float32.
    """
    name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise InvalidInput(f"dtype is {name!r}; it must be one of {', '.join(DTYPES)}")
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        # private, and not in every PyTorch
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


def prepare(
    device: str | torch.device, dtype: str | torch.dtype, threads: int | None = None
) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of these names, PyTorch set up for them: ``threads`` as in
    ``set_threads``, float32 meaning float32.
    """
    where = pick_device(device)
    what = pick_dtype(dtype, where)
    set_threads(threads, where)
    if where.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return where, what


def set_threads(asked: int | None, device: torch.device) -> None:
    """Let PyTorch use ``asked`` CPU threads in this thread; for None, on a CPU, one core less than
    it would take.
    """
    if asked is not None:
        torch.set_num_threads(asked)
    elif device.type == "cpu":
        torch.set_num_threads(max(1, all_threads() - 1))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use ``count`` CPU threads in this thread meanwhile.

    Every thread that computes with several keeps helpers of its own. Where all of them outnumber
    the cores, OpenMP lets them sleep between the many small parallel loops of a step, and waking
    them takes longer than the loops. So while an engine decodes on a CPU with all cores, whoever
    loads or decodes images beside it takes one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def all_threads() -> int:
    """As many CPU threads as PyTorch would take."""
    return torch.get_num_threads()


def free_memory(device: torch.device) -> int | None:
    """Bytes that new tensors may take: on CUDA of the device, elsewhere of the system or the
    container; None where nobody says.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    amounts = [
        1024 * kib for kib in _numbers("/proc/meminfo", r"^MemAvailable:\s*(\d+) kB", re.MULTILINE)
    ]
    for most, used, stat, cache in _CGROUPS:
        # what is cached of files makes room when it is asked to
        limits, taken = _numbers(most, r"^(\d+)$"), _numbers(used, r"^(\d+)$")
        cached = _numbers(stat, rf"^{cache} (\d+)", re.MULTILINE)
        amounts += [m - t + sum(cached) for m, t in zip(limits, taken, strict=False)]
    return max(0, min(amounts)) if amounts else None


_V1 = "/sys/fs/cgroup/memory/memory"
_CGROUPS = (
    (*(f"/sys/fs/cgroup/memory.{name}" for name in ("max", "current", "stat")), "inactive_file"),
    (*(f"{_V1}.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")),
     "total_inactive_file"),
)  # fmt: skip


def _numbers(path: str, pattern: str, flags: int = 0) -> list[int]:
    """The number in a file of the system; none where it is not there, or "max"."""
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8").strip(), flags)
    except (OSError, UnicodeDecodeError):
        return []
    return [int(found[1])] if found else []
