"""An engine that draws ahead tells what one tells that does not, in fewer passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aim.config import SamplingParams
from aim.engine import Engine, Request
from aim.engine import backend as backend_module
from aim.engine.backend import AUTO, looked, pick
from aim.engine.passes import OFF, Passes, up_to, widest
from aim.engine.requests import Cancelled, Finished, Progress
from aim.engine.runner import Runner
from aim.errors import InvalidInput
from aim.models.aim.cpu import CPUAiM
from aim.models.gpt.cpu import CPUGPT
from tests.engine.late import LateQueue
from tests.models.decoders import PACKED, Case, eager
from tests.tiny import random_gpt, random_model

FORMS = [Case(random_model, eager), Case(random_gpt, eager), *PACKED]


def requests() -> list[Request]:
    """Of all kinds, more than run at once."""
    return [
        Request(0, SamplingParams(cfg_scale=3.0), 1, 4, explain=True),
        Request(1, SamplingParams(cfg_scale=1.0, temperature=0.7), 2, 1),
        Request([(2, 0.25), (3, 0.75)], SamplingParams(top_k=5), 3),
        Request(3, SamplingParams(cfg_scale=2.0, top_p=0.7), 4, 8, prefix=(5, 9, 2, 7, 1)),
        Request(4, SamplingParams(cfg_scale=4.0, cfg_schedule="linear", min_p=0.1), 5, 16),
        Request(0, SamplingParams(temperature=0.0), 6, 5, alone=True, explain=True),
        Request(1, SamplingParams(), 7, 4, prefix=(1,)),
    ]


def told(engine: Engine, asked: list[Request]) -> tuple[list[Any], list[Any]]:
    """Of each request all codes and notes, and its previews."""
    last: dict[int, Any] = {}
    previews: list[Any] = [[] for _ in asked]
    ids = [request.id for request in asked]
    for event in engine.run(asked):
        if isinstance(event, Finished):
            notes = None if event.notes is None else event.notes.tolist()
            last[event.request_id] = event.codes.tolist(), notes
        elif isinstance(event, Progress):
            assert len(event.codes) == event.step
            previews[ids.index(event.request_id)].append((event.step, event.codes.tolist()))
    return [last[one] for one in ids], previews


@pytest.mark.parametrize("case", FORMS, ids=repr)
@pytest.mark.parametrize("items", [2, 4, 8, 16])
def test_codes_notes_and_previews_are_those_of_one_by_one(case: Case, items: int) -> None:
    model = case.prepare(case.make(items))
    codes, previews = told(Engine(model, 3), requests())
    ahead, some = told(Engine(model, 3, widths=up_to(items)), requests())
    assert ahead == codes
    for asked, (whole, _), few, all_of_them in zip(requests(), codes, some, previews, strict=True):
        if asked.explain:  # it is told all that is settled
            assert all(part == whole[:step] for step, part in few)
            continue
        assert set(map(str, few)) <= set(map(str, all_of_them))
        if asked.preview_every >= items:  # but for one that a pass to the end goes across
            assert len(few) in (len(all_of_them) - 1, len(all_of_them))
            assert few == all_of_them[: len(few)]


@pytest.mark.parametrize("case", FORMS, ids=repr)
@pytest.mark.parametrize("items", [2, 8])
def test_who_asks_for_notes_is_told_what_is_guessed(case: Case, items: int) -> None:
    model = case.prepare(case.make(items))
    asked = [
        Request(i % 5, SamplingParams(cfg_scale=3.0), i, 1, i < 3, prefix=(3, 9) * (i == 1))
        for i in range(4)
    ]
    events = list(Engine(model, 4, widths=((8, items),)).run(asked))
    whole = {e.request_id: e.codes for e in events if isinstance(e, Finished)}
    progress = [event for event in events if isinstance(event, Progress)]
    right = wrong = 0
    for event in progress:
        if event.request_id == asked[3].id:
            assert event.guesses is None
            continue
        follow = whole[event.request_id][event.step :]
        assert event.guesses is not None and event.notes is not None
        assert len(event.guesses) == min(items - 1, len(follow))
        assert len(event.notes) == len(event.codes) == event.step
        assert event.codes.tolist() == whole[event.request_id][: event.step].tolist()
        right += int((event.guesses == follow[: items - 1]).sum())
        wrong += int((event.guesses != follow[: items - 1]).sum())
    assert right > 0 and wrong > 0
    narrow = list(Engine(model, 4, widths=((2, items),)).run(asked))
    assert all(event.guesses is None for event in narrow if isinstance(event, Progress))


@pytest.mark.parametrize("make", [lambda: CPUAiM(random_model(1)), lambda: CPUGPT(random_gpt(1))])
def test_who_joins_and_who_leaves_changes_nothing(make: Any) -> None:
    model, asked = make(), requests()
    want, _ = told(Engine(model, 8), requests())
    engine = Engine(model, 4, widths=up_to(4))
    done: dict[int, list[int]] = {}
    gone = set()
    for i in range(200):
        if i < len(asked):
            engine.submit(asked[i])
        if i == 4:
            engine.cancel(asked[1].id)
        for event in engine.step():
            if isinstance(event, Finished):
                done[event.request_id] = event.codes.tolist()
            gone |= {event.request_id} if isinstance(event, Cancelled) else set()
        if engine.idle and i > len(asked):
            break
    assert engine.idle
    for request, (codes, _) in zip(asked, want, strict=True):
        assert done.get(request.id) == codes or (request is asked[1] and request.id in gone)


@pytest.mark.parametrize("lag", [1, 3, 7])
def test_a_device_that_tells_late_draws_the_same(queue: LateQueue, lag: int) -> None:
    queue.lag = lag
    model = CPUGPT(random_gpt(2))
    want, _ = told(Engine(model, 3), requests())
    assert told(Engine(model, 3, widths=up_to(8)), requests())[0] == want


@pytest.mark.parametrize(("ahead", "width"), [("auto", 1), ("off", 1), ("4", 4), (16, 16)])
def test_a_pipeline_draws_as_far_ahead_as_it_is_asked_to(ahead: Any, width: int) -> None:
    assert widest(pick(random_gpt(), "auto", ahead).widths) == width


@pytest.mark.parametrize("ahead", ["3", 0, "on", True, ""])
def test_another_number_is_refused(ahead: Any) -> None:
    with pytest.raises(InvalidInput, match=r"ahead is .*auto, off, 2, 4, 8, 16"):
        pick(random_gpt(), "eager", ahead)


@pytest.mark.parametrize(("tiles", "threads", "ahead"), [(False, 2, 1), (True, 2, 4), (True, 4, 1)])
def test_auto_on_a_cpu_is_by_its_tiles_and_cores(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, threads: int, ahead: int
) -> None:
    monkeypatch.setattr(backend_module, "has_tiles", lambda: tiles)
    monkeypatch.setattr(backend_module, "all_threads", lambda: threads)
    assert widest(looked("auto", "cpu", torch.bfloat16)) == ahead
    assert widest(looked(8, "cpu", torch.bfloat16)) == 8


def test_auto_is_a_table_in_bfloat16_and_off_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "_pays", lambda: True)
    for backend, widths in AUTO.items():
        assert looked("auto", backend, torch.bfloat16) == widths
        assert (
            looked("auto", backend, torch.float32) == looked("off", backend, torch.bfloat16) == OFF
        )
        rows = [most for most, _ in widths]
        assert rows == sorted(rows) and all(rows * items <= 64 for rows, items in widths)


def test_passes_of_one_code_are_not_waited_for(queue: LateQueue) -> None:
    """A batch that is too large to be looked ahead of, then one that is not."""
    queue.lag = 5
    model = CPUGPT(random_gpt(3))
    want, _ = told(Engine(model, 4), requests())
    engine = Engine(model, 4, widths=((4, 8),))
    assert told(engine, requests())[0] == want
    engine.drain()


@pytest.mark.parametrize("after", range(1, 16))
def test_a_pass_of_one_code_begins_when_all_who_are_done_have_left(
    queue: LateQueue, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Of whom the host has not heard when others join; it needs no look at who is done."""
    queue.lag = 5
    model = CPUGPT(random_gpt(3))
    first, *others = asked = requests()[:3]
    want, _ = told(Engine(model, 3), asked)
    engine, step = Engine(model, 3, widths=((4, 8),)), Runner.step

    def checked(runner: Runner, rows: int, width: int = 1) -> None:
        assert width > 1 or runner._rows.positions[:rows].max() < runner.total
        step(runner, rows, width)

    monkeypatch.setattr(Runner, "step", checked)
    engine.submit(first)
    events = [event for _ in range(after) for event in engine.step()]
    events += list(engine.run(others))
    done = {one.request_id: one.codes.tolist() for one in events if isinstance(one, Finished)}
    assert [done[one.id] for one in asked] == [codes for codes, _ in want]


def test_a_backend_whose_step_reads_one_code_refuses_a_number() -> None:
    backend = "mamba-ssm"
    for ahead in ("auto", "off"):
        assert looked(ahead, backend, torch.bfloat16) == OFF
    with pytest.raises(InvalidInput, match=f"ahead is 4, but the backend is '{backend}'"):
        looked(4, backend, torch.bfloat16)


def test_a_wide_batch_is_looked_at_less_far() -> None:
    passes = Passes(Runner(random_gpt(), 4), up_to(16))
    assert [passes.width(rows) for rows in (2, 4, 8, 12, 32, 64, 128)] == [16, 16, 8, 4, 2, 1, 1]
