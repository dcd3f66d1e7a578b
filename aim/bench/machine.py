"""The machine that a number was measured on: names, versions, and how fast its memory copies."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from aim._version import __version__

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What a result depends on besides the model. None where there is no such thing or it cannot be
    found out.
    """

    device: str  # as PyTorch calls it
    name: str  # of the GPU or the CPU
    memory_gib: float | None  # of the GPU
    driver: str | None  # of the GPU
    cuda: str | None  # that PyTorch was built for
    capability: str | None
    threads: int  # PyTorch's, on the CPU
    cores: int | None
    system: str
    python: str
    pytorch: str
    triton: str | None
    aim: str

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """The machine here, of which ``device`` is used."""
        cuda = device.type == "cuda"
        properties = torch.cuda.get_device_properties(device) if cuda else None
        return cls(
            device=str(device),
            name=properties.name if properties else cpu_name(),
            memory_gib=round(properties.total_memory / GIB, 1) if properties else None,
            driver=driver_version() if cuda else None,
            cuda=torch.version.cuda if cuda else None,
            capability=f"{properties.major}.{properties.minor}" if properties else None,
            threads=torch.get_num_threads(),
            cores=_cores(),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            pytorch=torch.__version__,
            triton=_installed("triton"),
            aim=__version__,
        )


def cpu_name() -> str:
    """The processor's model, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(
            r"^model name\s*:\s*(.+)$",
            cpuinfo.read_text(encoding="utf-8", errors="replace"),
            re.MULTILINE,
        )
        if found:
            return found[1].strip()
    if sys.platform == "darwin":
        name = _said(["sysctl", "-n", "machdep.cpu.brand_string"])
        if name:
            return name
    return platform.processor() or platform.machine()


def driver_version() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi or the kernel module."""
    said = _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    if said:
        return said.splitlines()[0].strip()
    module = Path("/proc/driver/nvidia/version")
    found = (
        re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", module.read_text(encoding="utf-8"))
        if module.is_file()
        else None
    )
    return found[0] if found else None


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """The most memory held since this was made, in bytes: on CUDA by PyTorch's tensors, elsewhere
    by this process.

    Where the system does not let a process forget its earlier peak (all but Linux), what was held
    before counts, too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def used(self) -> int | None:
        """None on Windows."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        status = Path("/proc/self/status")
        found = (
            re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
            if status.is_file()
            else None
        )
        if found:
            return 1024 * int(found[1])
        if sys.platform == "win32":
            return None
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )

    def reserved(self) -> int | None:
        """What PyTorch took from the device for it, captured graphs included; None without CUDA."""
        return torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else None


class Clock:
    """Moments in a device's work: on CUDA by its own clock, so that the host, which may be steps
    ahead, neither waits nor asks; elsewhere when all that was ordered is done. In the context
    ``work`` the work is ordered.
    """

    def __init__(
        self, device: torch.device, work: Callable[[], AbstractContextManager[object]] | None = None
    ) -> None:
        self._device, self._marks = device, list[Any]()
        self._work = work or partial(torch.cuda.device, device)

    def mark(self) -> None:
        """Now, behind what was ordered so far."""
        if self._device.type != "cuda":
            synchronize(self._device)
            self._marks.append(time.perf_counter())
            return
        with self._work():
            self._marks.append(torch.cuda.Event(enable_timing=True))
            self._marks[-1].record()

    def laps(self) -> list[float]:
        """Seconds between marks, all of which the device must have reached."""
        cuda = self._device.type == "cuda"
        return [a.elapsed_time(b) / 1e3 if cuda else b - a for a, b in pairwise(self._marks)]


def copy_bandwidth(device: torch.device, size: int | None = None, repeats: int = 20) -> float:
    """Bytes a second that a copy within the device's memory reads and writes: twice the buffer over
    the median time of a copy.

    The buffer has ``size`` bytes, if left out 2 GiB on a GPU or a sixth of its free memory, 512 MiB
    elsewhere: far more than any cache holds. On a CPU the copy takes PyTorch's threads.
    """
    if size is None:
        size = (
            min(2 * GIB, torch.cuda.mem_get_info(device)[0] // 6)
            if device.type == "cuda"
            else GIB // 2
        )
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    clock = Clock(device)
    clock.mark()
    for _ in range(repeats + 3):
        target.copy_(source)
        clock.mark()
    synchronize(device)
    return 2 * size / statistics.median(clock.laps()[3:])


def arithmetic_rate(device: torch.device, dtype: torch.dtype, repeats: int = 20) -> float:
    """Operations a second of a large product of matrices, a multiplication and an addition being
    two: the median of ``repeats``, 8,192 wide on a GPU, 1,024 elsewhere.
    """
    width = 8192 if device.type == "cuda" else 1024
    one = torch.randn(width, width, device=device, dtype=dtype)
    clock = Clock(device)
    clock.mark()
    for _ in range(repeats + 3):
        one @ one
        clock.mark()
    synchronize(device)
    return 2 * width**3 / statistics.median(clock.laps()[3:])


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(command: list[str]) -> str | None:
    """What a program prints, None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
