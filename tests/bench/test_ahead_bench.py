"""Codes a pass, counted."""

from __future__ import annotations

import json

import pytest

from aim.bench import ahead
from aim.bench.ahead import as_json, as_table, count, kinds, parse_widths
from aim.engine import Engine, Finished, Request
from aim.errors import InvalidInput
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.bench.rivals import gpt_pipeline


@pytest.fixture
def pipe(tiny_vq: VQ) -> Pipeline:
    return gpt_pipeline(tiny_vq)


def test_every_kind_has_what_its_pictures_take_alone(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "TOGETHER", 3)
    said: list[str] = []
    report = count(pipe, [2, 8], 2, said.append)
    assert [one.items for one in report.settled] == [2] * 13 + [8] * 13
    assert said == ["passes of 2 of up to 8 codes", "passes of 8 of up to 8 codes"]
    for (what, params, rows), one in zip(kinds(pipe), report.settled[13:], strict=True):
        engine = Engine(pipe.engine(1).model, 1, captured=False, widths=((4, 8),))
        passes = []
        for seed in range(2):
            asked = Request(rows[seed % len(rows)], params, seed)
            passes += [e.passes for e in engine.run([asked]) if isinstance(e, Finished)]
        assert (one.what, one.params) == (what, params)
        assert one.codes_per_pass == 2 * 16 / sum(passes)
        assert (one.least, one.most) == (16 / max(passes), 16 / min(passes))
    assert len({one.what for one in report.settled}) == 13  # one setting is its own
    assert json.loads(as_json(report))["settled"][0]["params"]["cfg_scale"] == 1.5
    assert as_table(report).row_count == 13


def test_a_step_that_reads_one_code_is_refused(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "backend", "mamba-ssm")
    with pytest.raises(InvalidInput, match="ahead is 4, but the backend is 'mamba-ssm'"):
        count(pipe, [4], 1)


@pytest.mark.parametrize("text", ["", "1", "2,3", "32", "two", "-2"])
def test_widths_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"items is .*some of 2, 4, 8, 16"):
        parse_widths(text)


def test_widths_come_once_each() -> None:
    assert parse_widths("16, 2,2") == [16, 2]
