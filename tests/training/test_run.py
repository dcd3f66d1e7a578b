"""A run ends by the clock or by steps, resumes, and is safe against being killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import Clock
from torch import nn

from aim.errors import CheckpointError
from aim.training.run import Run

Parts = Callable[[], dict[str, nn.Module]]


def test_ends_by_steps(out: Path, parts: Parts, clock: Clock) -> None:
    run = Run(out, parts(), seconds=1000, steps=4)
    assert run.progress == 0
    assert [run.advance() for _ in range(4)] == [True, True, True, False]
    assert run.progress == 1


def test_ends_by_the_clock_which_starts_after_three_steps(
    out: Path, parts: Parts, clock: Clock
) -> None:
    run = Run(out, parts(), seconds=20)
    going, at = [], []
    for _ in range(8):
        clock.now += 5
        at.append(run.progress)
        going.append(run.advance())
    # the first three steps count until they are done
    assert at == [0.25, 0.25, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert going == [True] * 6 + [False] * 2
    assert run.elapsed == 25


def test_progress_is_that_of_the_shorter_budget(out: Path, parts: Parts, clock: Clock) -> None:
    run = Run(out, parts(), seconds=100, steps=10)
    for _ in range(5):
        run.advance()
    assert run.progress == 0.5
    clock.now += 80
    assert run.progress == 0.8


def test_resumes_with_its_time_step_and_parts(out: Path, parts: Parts, clock: Clock) -> None:
    first = parts()
    optimizer = torch.optim.AdamW(first["model"].parameters(), lr=0.1)
    first["model"](torch.ones(2)).sum().backward()
    optimizer.step()
    run = Run(out, {**first, "optimizer": optimizer}, seconds=20)
    for _ in range(5):
        run.advance()
    clock.now += 12
    run.save()
    second = parts()
    other = torch.optim.AdamW(second["model"].parameters(), lr=0.1)
    clock.now += 1000  # while nothing runs
    again = Run(out, {**second, "optimizer": other}, seconds=20)
    assert (again.step, again.elapsed, again.progress) == (5, 12, 0.6)
    assert torch.equal(second["model"].weight, first["model"].weight)
    key = lambda o: o.state[o.param_groups[0]["params"][0]]["exp_avg"]  # noqa: E731
    assert torch.equal(key(other), key(optimizer))
    for _ in range(3):
        clock.now += 3
        assert again.advance(), "three steps are off the clock again"
    assert again.elapsed == 12
    clock.now += 8
    assert not again.advance()
    assert Run(out, {**second, "optimizer": other}, seconds=20).progress == 1
    assert Run(out, {**second, "optimizer": other}, seconds=40).progress == 0.5, (
        "a larger budget goes on"
    )


def test_saves_at_the_end_and_now_and_then(out: Path, parts: Parts, clock: Clock) -> None:
    run = Run(out, parts(), seconds=1000, steps=5, save_every=60)
    saved = []
    for seconds in (0, 61, 0, 0, 0):
        clock.now += seconds
        run.advance()
        saved.append(torch.load(out / "state.pt")["step"] if (out / "state.pt").exists() else None)
    assert saved == [None, 2, 2, 2, 5]


def test_killed_while_saving(out: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = parts()
    run = Run(out, mine, seconds=1000)
    run.advance()
    run.save()

    def die(state: Any, file: Any) -> None:
        file.write(b"half of a")
        raise KeyboardInterrupt

    run.advance()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", die)
        with pytest.raises(KeyboardInterrupt):
            run.save()
    theirs = parts()
    again = Run(out, theirs, seconds=1000)
    assert again.step == 1
    assert torch.equal(mine["model"].weight, theirs["model"].weight)
    again.advance()
    again.save()
    assert [path.name for path in out.iterdir()] == ["state.pt"]


def test_other_parts_are_refused(out: Path, parts: Parts) -> None:
    Run(out, parts(), seconds=10).save()
    with pytest.raises(
        CheckpointError, match=r"holds \['model'\], not \['ema', 'model'\]; use another folder"
    ):
        Run(out, {**parts(), "ema": nn.Linear(1, 1)}, seconds=10)


def test_log(out: Path, parts: Parts, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(out, parts(), seconds=10)
    run.log(loss=torch.tensor(0.1234567), name="x")
    for _ in range(4):
        run.advance()
    clock.now += 2.34
    run.log(loss=1.5)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 0, "seconds": 0.0, "loss": 0.12346, "name": "x"},
        {"step": 4, "seconds": 2.3, "loss": 1.5},
    ]
    assert (
        capsys.readouterr().out
        == "step 0 seconds 0 loss 0.1235 name x\nstep 4 seconds 2.3 loss 1.5\n"
    )
