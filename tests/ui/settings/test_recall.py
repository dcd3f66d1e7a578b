"""Parameters from outside: what is taken over, what is refused, what differs; presets; the zip of a
visit.
"""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import Any
from urllib.parse import parse_qs

import pytest

from aim.config import INDEX, NEUTRAL, SamplingParams
from aim.errors import InvalidInput
from aim.pipeline import Pipeline
from aim.ui.models import Models
from aim.ui.settings.presets import OWN, PAPERS, PRESETS, preset_values
from aim.ui.settings.recall import Recalled, differences, query, recall


@pytest.fixture
def models() -> Models:
    found = Models.__new__(Models)
    found._names = ["tiny", "aim-b"]
    return found


def test_a_picture_s_parameters_and_a_link_say_the_same(
    models: Models, tiny_pipeline: Pipeline
) -> None:
    inside = {
        **tiny_pipeline.parameters("goldfish", 7, SamplingParams(2.5, 0.9, 20, 0.8)),
        "model": "tiny",
        "count": 4,
    }
    link = {name: values[0] for name, values in parse_qs(query(inside)).items()}
    assert set(link) == {"model", "version", "class", "seed", *INDEX, "count"}
    assert (
        recall(inside, models)
        == recall(link, models)
        == Recalled("tiny", 1, 7, 4, asdict(SamplingParams(2.5, 0.9, 20, 0.8)))
    )


def test_what_is_not_said_is_left_alone(models: Models) -> None:
    assert recall({}, models) == Recalled()
    assert recall({"class": "goldfish", "colour": "red"}, models) == Recalled(label="goldfish")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": "/etc/passwd"},
            "there is no model '/etc/passwd' here; choose one of tiny, aim-b",
        ),
        ({"class": [1]}, r"class is \[1\]; it must be"),
        ({"class": True}, "class is True"),
        ({"seed": "many"}, "seed is 'many'; it must be a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"cfg_scale": "x" * 900}, f"cfg_scale is '{'x' * 40}'; it must be a number"),
        ({"cfg_scale": "nan"}, "cfg_scale is nan"),
        ({"temperature": 99}, "temperature is 99"),
        ({"top_k": {}}, "top_k is {}; it must be a whole number"),
        ({"top_p": "0"}, "top_p is 0"),
        ({"count": "3"}, "count is 3; it must be one of 1, 4, 9"),
    ],
)
def test_nonsense_is_refused_by_name(models: Models, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        recall(values, models)


def test_what_may_come_out_otherwise(tiny_pipeline: Pipeline) -> None:
    inside = tiny_pipeline.parameters("goldfish", 7, tiny_pipeline.sampling)
    assert differences(inside, tiny_pipeline) == ""
    told = differences({**inside, "dtype": "bfloat16", "version": "other"}, tiny_pipeline)
    assert told.startswith(
        "The picture may come out otherwise: it differs in the model's version (other there, "
    )
    assert "the number format (bfloat16 there, float32 here)" in told


def test_presets(tiny_pipeline: Pipeline) -> None:
    own = tiny_pipeline.sampling
    assert preset_values("The model's own", tiny_pipeline) == list(astuple(own))
    paper = NEUTRAL.replace(cfg_scale=own.cfg_scale)
    assert preset_values(PAPERS, tiny_pipeline) == list(astuple(paper))
    for name in ("", None, "gone"):  # emptied
        assert preset_values(name, tiny_pipeline) == preset_values(OWN, tiny_pipeline)
    for name in PRESETS:
        SamplingParams(*preset_values(name, tiny_pipeline))
