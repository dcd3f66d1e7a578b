"""Scaling on tiny models: what is measured, what is made up from it, what is left out and why, and
the words for it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from aim.bench import sequence_cost
from aim.bench.scaling import Cost, Missing, Scaling, scaling, verdicts
from aim.bench.sequence_cost import FULL, Timed, fits
from aim.bench.table import as_csv, as_json, scaling_table
from aim.config import MODELS, ModelSpec, VQConfig
from aim.engine import Engine
from aim.engine.backend import Backend
from aim.engine.runner import Runner
from aim.errors import GenerationError, InvalidInput
from aim.models.aim.model import AiM
from tests.bench.rivals import CONFIGS, tiny_gpt

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny models have a place among the named ones."""
    for name, config in CONFIGS.items():
        monkeypatch.setitem(MODELS, name, ModelSpec(name, config, VQConfig(), "none"))
    monkeypatch.setenv("AIM_THREADS", "1")


def measured(tokens: list[int], batches: list[int], **rest: object) -> Scaling:
    return scaling(tuple(CONFIGS), tokens, batches, "cpu", "float32", "eager", **rest)  # type: ignore[arg-type]


class Line:
    """Stands for the steps of a batch: a step at position p takes a + b p seconds. Keeps the
    positions that were asked for.
    """

    def __init__(self, a: float, b: float, fold: float = 0.0) -> None:
        self._a, self._b, self._fold = a, b, fold
        self.asked: list[int] = []

    def seconds(self, start: int, count: int) -> list[float]:
        self.asked += range(start, start + count)
        return [
            self._a + self._b * p + self._fold * (p % 16 == 15) for p in range(start, start + count)
        ]


class TestAlong:
    @pytest.mark.parametrize("tokens", [1024, 4096, 16384])
    def test_what_grows_evenly_is_found_from_few_places(self, tokens: int) -> None:
        steps = Line(1.0, 0.01)
        found = sequence_cost._along(steps, tokens, folds=False, seconds=1e9)  # type: ignore[arg-type]
        want = 1.0 * tokens + 0.01 * tokens * (tokens - 1) / 2
        assert float(found.steps.sum()) == pytest.approx(want, rel=1e-3)
        assert len(found.steps) == tokens
        assert len(found.measured) == sequence_cost.WINDOWS * sequence_cost.LONGEST
        assert (min(steps.asked), max(steps.asked)) == (0, tokens - 1)

    def test_a_short_sequence_is_measured_step_by_step(self) -> None:
        found = sequence_cost._along(Line(1.0, 0.5), FULL, folds=False, seconds=1e9)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.steps, 1.0 + 0.5 * np.arange(FULL))
        np.testing.assert_array_equal(found.measured, np.arange(FULL))

    def test_little_time_is_kept_to(self) -> None:
        steps = Line(1.0, 0.0)
        found = sequence_cost._along(steps, FULL, folds=False, seconds=20)  # type: ignore[arg-type]
        assert float(found.steps.sum()) == pytest.approx(FULL)
        assert len(steps.asked) <= 24

    @pytest.mark.parametrize("tokens", [64, 256, 1024])
    def test_a_history_is_stepped_from_its_start_and_repeats_itself(self, tokens: int) -> None:
        steps = Line(1.0, 0.0, fold=8.0)
        found = sequence_cost._along(steps, tokens, folds=True, seconds=0.0)  # type: ignore[arg-type]
        assert float(found.steps.sum()) == pytest.approx(tokens * 1.5)
        assert steps.asked[4:] == list(range(min(tokens, FULL)))

    def test_places_never_leave_the_sequence(self) -> None:
        for tokens in (4, 9, 16, 64):
            steps = Line(1.0, 0.0)
            found = sequence_cost._along(steps, tokens, folds=False, seconds=0.0)  # type: ignore[arg-type]
            assert isinstance(found, Timed)
            assert len(found.steps) == tokens
            assert set(steps.asked) <= set(range(tokens))


class TestSteps:
    def test_rows_stand_where_they_are_put(
        self, tiny_model: AiM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[int]] = []
        step = Runner.step

        def watched(self: Runner, rows: int) -> None:
            seen.append(self._rows.positions.tolist())
            step(self, rows)

        monkeypatch.setattr(Runner, "step", watched)
        steps = sequence_cost._Steps(
            Backend("eager", tiny_model), 2, filled=True, stop=lambda: False
        )
        seen.clear()
        assert len(steps.seconds(9, 3)) == 3
        assert seen == [[9] * 4, [10] * 4, [11] * 4]

    def test_states_are_full_of_finite_numbers(self) -> None:
        model = tiny_gpt()
        state = sequence_cost._Filled(model).new_state(2)
        for part in state:
            assert part.isfinite().all()
            assert part.std() == pytest.approx(1.0, abs=0.1)
        assert sequence_cost._Filled(model).config is model.config

    def test_the_sum_is_near_what_a_drawing_takes(self) -> None:
        """Not a gate on speed: a sum of sampled steps that is off by a factor would be a
        mistake.
        """
        from aim.bench.runs import timed
        from aim.bench.speed import requests_for

        model = tiny_gpt(num_tokens=64)
        backend = Backend("eager", model)
        engine = Engine(model, max_requests=1)
        drawn = min(timed(engine, requests_for(model, 1), CPU).seconds for _ in range(4))
        found = sequence_cost.cost("gpt", backend, 1, 1.0, lambda: False)
        assert drawn / 4 < found.seconds < 4 * drawn


class TestResult:
    def test_every_size_of_both(self) -> None:
        done: list[tuple[int, int]] = []
        said: list[str] = []
        found = measured(
            [16, 64],
            [1, 2],
            seconds=120.0,
            say=said.append,
            progress=lambda a, b: done.append((a, b)),
        )
        assert found.missing == ()
        assert {(c.model, c.tokens, c.batch) for c in found.costs} == {
            (n, t, b) for n in CONFIGS for t in (16, 64) for b in (1, 2)
        }
        assert done == [(i, 8) for i in range(9)]
        assert said[0] == "aim-tiny, 16 codes, batch 1"
        for cost in found.costs:
            assert cost.seconds_per_image == cost.seconds / cost.batch > 0
            assert (cost.step_ms[0][0], cost.step_ms[-1][0]) == (0, cost.tokens - 1)

    def test_a_state_stays_and_a_cache_grows(self) -> None:
        found = measured([16, 256], [1], seconds=120.0)
        aim, gpt = ([found.cost(name, tokens, 1) for tokens in (16, 256)] for name in CONFIGS)
        assert aim[0] and aim[1] and gpt[0] and gpt[1]
        assert aim[0].sequence_bytes == aim[1].sequence_bytes
        assert gpt[1].sequence_bytes == sum(
            part.nbytes for part in tiny_gpt(num_tokens=256).new_state(2)
        )
        assert gpt[1].sequence_bytes > 4 * gpt[0].sequence_bytes

    def test_both_axes_come_first(self) -> None:
        said: list[str] = []
        measured([16, 64], [1, 2], seconds=120.0, say=said.append)
        assert said[-2:] == ["aim-tiny, 64 codes, batch 2", "gpt-tiny, 64 codes, batch 2"]

    def test_no_time_leaves_the_rest_out(self) -> None:
        found = measured([16, 64], [1], seconds=1e-9)
        assert found.costs == ()
        assert {lack.error for lack in found.missing} == {"no time left"}
        assert len(found.missing) == 4

    def test_stop_keeps_what_there_is(self) -> None:
        said: list[str] = []
        found = measured([16, 64], [1], seconds=4.0, say=said.append, stop=lambda: len(said) > 2)
        assert [(cost.model, cost.tokens) for cost in found.costs] == [
            ("aim-tiny", 16),
            ("gpt-tiny", 16),
        ]
        assert [lack.error for lack in found.missing] == ["stopped", "stopped"]

    def test_what_does_not_fit_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sequence_cost, "free_memory", lambda device: 100_000)
        found = measured([16, 1024], [1], seconds=120.0)
        assert Missing("gpt-tiny", 1024, 1, "out of memory") in found.missing
        assert found.cost("aim-tiny", 16, 1) is not None

    def test_a_failed_allocation_counts_as_out_of_memory(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> Cost:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )

        monkeypatch.setitem(scaling.__globals__, "cost", fail)
        assert {lack.error for lack in measured([16], [1]).missing} == {"out of memory"}

    def test_any_other_failure_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> Cost:
            raise RuntimeError("boom")

        monkeypatch.setitem(scaling.__globals__, "cost", fail)
        with pytest.raises(GenerationError, match="aim-tiny failed at batch 1: boom"):
            measured([16], [1])

    @pytest.mark.parametrize("tokens", [2, 60, 2**22])
    def test_lengths_are_squares(self, tokens: int) -> None:
        with pytest.raises(InvalidInput, match=f"number of codes is {tokens}"):
            measured([tokens], [1])

    def test_a_model_without_a_name(self) -> None:
        with pytest.raises(InvalidInput, match="no model is called 'aim-x'"):
            scaling(("aim-x", "gpt-tiny"), [16], [1], "cpu")

    def test_who_knows_nothing_of_memory_is_let_through(
        self, tiny_model: AiM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sequence_cost, "free_memory", lambda device: None)
        assert fits(tiny_model, 10**9)


def made(aim: list[float], gpt: list[float], sizes: list[tuple[int, int]]) -> Scaling:
    """A result with these seconds at sizes of (codes, batch)."""
    blank = measured([16], [1], seconds=1e-9)
    costs = [
        Cost(name, "eager", tokens, batch, seconds, seconds / batch, ((0, 1.0),), 1, 10)
        for name, times in (("aim-tiny", aim), ("gpt-tiny", gpt))
        for seconds, (tokens, batch) in zip(times, sizes, strict=True)
    ]
    tokens, batches = (tuple(dict.fromkeys(part)) for part in zip(*sizes, strict=True))
    return dataclasses.replace(
        blank, costs=tuple(costs), missing=(), tokens=tokens, batches=batches
    )


class TestWords:
    def test_who_wins_where_and_where_it_turns(self) -> None:
        found = made([2.0, 8.0, 32.0], [1.0, 8.1, 64.0], [(256, 1), (1024, 1), (4096, 1)])
        assert verdicts(found) == [
            "Batch 1: aim-tiny is faster at 4,096 codes; gpt-tiny is faster at 256 codes; even at "
            "1,024 codes; "
            "as fast as each other near 1,000."
        ]

    def test_along_the_batch(self) -> None:
        found = made([1.0, 4.0], [2.0, 2.0], [(256, 1), (256, 4)])
        assert verdicts(found)[-1] == (
            "256 codes an image: aim-tiny is faster at 1 at once; gpt-tiny is faster at 4 at once; "
            "as fast as each other near 2."
        )

    def test_one_who_always_wins(self) -> None:
        assert verdicts(made([1.0, 2.0], [3.0, 4.0], [(256, 1), (1024, 1)])) == [
            "Batch 1: aim-tiny is faster at 256 and 1,024 codes."
        ]

    def test_nothing_measured(self) -> None:
        assert verdicts(measured([16], [1], seconds=1e-9)) == ["Batch 1: not measured for both."]


class TestOutput:
    def test_json_csv_and_table_say_the_same(self, tmp_path: Path) -> None:
        found = made([2.0, 8.0], [1.0, 8.1], [(256, 1), (1024, 1)])
        found = dataclasses.replace(
            found, costs=found.costs[:3], missing=(Missing("gpt-tiny", 1024, 1, "out of memory"),)
        )
        told = json.loads(as_json(found))
        assert [
            Cost(**{**cost, "step_ms": tuple(map(tuple, cost["step_ms"]))})
            for cost in told["costs"]
        ] == list(found.costs)
        rows = list(csv.DictReader(io.StringIO(as_csv(found))))
        assert [(row["model"], row["tokens"], row["seconds"], row["error"]) for row in rows] == [
            ("aim-tiny", "256", "2.0", ""),
            ("aim-tiny", "1024", "8.0", ""),
            ("gpt-tiny", "256", "1.0", ""),
            ("gpt-tiny", "1024", "", "out of memory"),
        ]
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(scaling_table(found))
        text = console.export_text()
        assert "gpt-tiny, MB" in text
        assert "out of memory" in text
