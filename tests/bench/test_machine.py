"""What is said of the machine, and the bandwidth measured on it."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import time

import pytest
import torch

from aim._version import __version__
from aim.bench import machine
from aim.bench.machine import Machine, PeakMemory, copy_bandwidth

CPU = torch.device("cpu")
MIB = 2**20


def test_a_machine_without_a_gpu() -> None:
    here = Machine.of(CPU)
    assert (here.device, here.python, here.pytorch, here.aim) == (
        "cpu",
        platform.python_version(),
        torch.__version__,
        __version__,
    )
    assert here.name
    assert here.threads == torch.get_num_threads()
    assert (here.driver, here.cuda, here.capability, here.memory_gib) == (None, None, None, None)
    assert json.loads(json.dumps(dataclasses.asdict(here))) == dataclasses.asdict(here)


def test_the_driver_is_what_nvidia_smi_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    said = subprocess.CompletedProcess([], 0, stdout="575.57.08\n575.57.08\n")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: said)
    assert machine.driver_version() == "575.57.08"


def test_a_program_that_fails_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")

    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(machine.subprocess, "run", fail)
    assert machine._said(["nvidia-smi"]) is None


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.Clock, "laps", lambda clock: [9.0, 9.0, 9.0, 0.5, 0.1, 0.2])
    assert copy_bandwidth(CPU, size=MIB, repeats=3) == pytest.approx(2 * MIB / 0.2)


def test_a_clock_times_what_lies_between_its_marks() -> None:
    clock = machine.Clock(CPU)
    for seconds in (0.0, 0.03, 0.0):
        time.sleep(seconds)
        clock.mark()
    first, second = clock.laps()
    assert first >= 0.03 > second


def test_the_bandwidth_of_this_machine_is_a_number() -> None:
    assert copy_bandwidth(CPU, size=MIB, repeats=2) > 0


def test_peak_memory_sees_what_is_held_and_let_go() -> None:
    memory = PeakMemory(CPU)
    before = memory.used()
    if before is None:
        pytest.skip("this system does not tell")
    large = torch.ones(256 * MIB, dtype=torch.uint8)
    del large
    assert memory.used() - before > 200 * MIB
    assert memory.reserved() is None
