"""What a line of a log says beside its losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import Clock
from torch import nn

from aim.training.pace import PEAKS, Means, left, utilization
from aim.training.parallel import ALONE
from aim.training.run import Run

Parts = Callable[[], dict[str, nn.Module]]


def test_means_are_of_the_steps_since_the_last_line() -> None:
    means = Means()
    for loss, norm in ((1.0, 2.0), (3.0, math.nan), (5.0, 6.0)):
        means.add({"loss": torch.tensor(loss), "norm": torch.tensor(norm)})
    means.add({"loss": torch.tensor(7.0), "other": torch.tensor(math.inf)})
    found = {name: value.item() for name, value in means.take(ALONE).items()}
    assert found == {"loss": 4.0, "norm": 4.0}, "what is not finite does not count"
    assert means.take(ALONE) == {}


def test_the_pace_leaves_out_the_first_steps(out: Path, parts: Parts, clock: Clock) -> None:
    run = Run(out, parts(), seconds=1000)
    for seconds in (100, 50, 1, 1, 1):
        clock.now += seconds
        run.advance()
    assert run.pace() == 1.0, "of steps 4 and 5"
    run.mark()
    clock.now += 30  # a validation
    run.mark()
    clock.now += 2
    run.advance()
    assert run.pace() == 0.5


def test_the_pace_of_first_steps_is_not_known(out: Path, parts: Parts, clock: Clock) -> None:
    """They compile: a line after each of them says nothing, and the next is right."""
    run = Run(out, parts(), seconds=1000)
    found = []
    for seconds in (100, 50, 4, 4, 4):
        clock.now += seconds
        run.advance()
        found.append(run.pace())
        run.mark()
    assert found == [0, 0, 0, 0.25, 0.25]


def test_the_pace_is_without_saves(
    out: Path, parts: Parts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(out, parts(), seconds=1000)
    for _ in range(5):
        clock.now += 2
        run.advance()
    monkeypatch.setattr(torch, "save", lambda *_: setattr(clock, "now", clock.now + 60))
    run.save()
    assert run.pace() == 0.5


def test_every_gpu_is_found_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, peak in PEAKS.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, kind=kind: f"NVIDIA {kind} X")
        assert utilization(1, 1, peak / 6, torch.device("cuda"), 1) == pytest.approx(1), kind


@pytest.mark.parametrize(
    ("seconds", "steps", "wanted"),
    [(100, 10**9, 70.0), (math.inf, 60, 20.0), (100, 60, 20.0), (math.inf, 10**9, None)],
)
def test_what_is_left_is_of_the_budget_that_ends_first(
    seconds: float, steps: int, wanted: float | None
) -> None:
    assert left(seconds, 30, steps, 20, 2.0) == wanted


def test_a_line_says_total_and_time_left(
    out: Path, parts: Parts, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(out, parts(), seconds=1000, steps=40)
    run.advance()
    run.log(eta=3725, loss=1.5)
    assert "step 1/40 seconds 0 eta 1:02:05 loss 1.5" in capsys.readouterr().out
    assert '"step": 1, "seconds": 0.0, "eta": 3725' in (out / "log.jsonl").read_text()


def test_utilization_is_known_of_known_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert utilization(10**9, 256, 100, torch.device("cpu"), 1) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert utilization(10**9, 256, 2000, cuda, 4) == pytest.approx(6e9 * 256 * 2000 / 4 / 989e12)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some card")
    assert utilization(10**9, 256, 2000, cuda, 4) is None
