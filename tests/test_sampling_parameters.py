"""A declared sampling parameter is in every place where there are sampling parameters: one that is
forgotten somewhere fails here.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import torch
from PIL import Image
from typer.main import get_command

from aim.bench.table import RACE
from aim.checkpoint.config_json import from_values, to_values
from aim.cli import app
from aim.compare import AXES, Axis
from aim.config import INDEX, MODELS, NEUTRAL, SAMPLING, AiMConfig, SamplingParams
from aim.errors import CheckpointError, InvalidInput
from aim.evaluation.run import preset
from aim.evaluation.samples import SETTINGS, SampleSet
from aim.images import read, write
from aim.parameters import Parameter
from aim.pipeline import Pipeline
from aim.sampling import RowParams, Rows
from aim.ui.drawings import caption
from aim.ui.models import Models
from aim.ui.settings.presets import PRESETS, preset_values
from aim.ui.settings.recall import query, recall
from aim.ui.stage.widgets import sampling_boxes

each = pytest.mark.parametrize("p", SAMPLING, ids=lambda p: p.name)


def other(p: Parameter) -> Any:
    """A value that is neither the default nor neutral."""
    candidates = p.choices or ((5,) if p.whole else (0.25, 0.75))
    default = getattr(SamplingParams(), p.name)
    return next(value for value in candidates if value not in (p.neutral, default))


def changed(p: Parameter) -> SamplingParams:
    return SamplingParams().replace(**{p.name: other(p)})


@each
def test_what_is_not_allowed_is_refused_by_name(p: Parameter) -> None:
    bad = "none such" if p.choices else p.high + 1
    with pytest.raises(InvalidInput, match=f"{p.name} is {bad!r}"):
        SamplingParams().replace(**{p.name: bad})
    assert p.check(p.neutral) == p.neutral and p.title and p.help.endswith(".")


@each
def test_a_row_of_a_batch_holds_it(p: Parameter) -> None:
    rows = RowParams.of([NEUTRAL, changed(p)], [0, 1], 1)
    assert rows.values.shape == (len(SAMPLING), 2) == Rows.new(2, 1).params.shape
    held = torch.tensor([p.number(p.neutral), p.number(other(p))])
    assert torch.equal(rows[p.name], held)
    assert p.name in rows.active
    assert RowParams.of([NEUTRAL], [0], 1).active == set()


@each
def test_commands_take_it(p: Parameter) -> None:
    for name in ("sample", "evaluate"):
        command = get_command(app).commands[name]  # type: ignore[attr-defined]
        [option] = [o for o in command.params if o.name == p.name]
        assert option.opts == [f"--{p.name.replace('_', '-')}"]
        assert option.help.startswith(p.help) and option.default is None


@each
def test_the_pipeline_takes_it_by_name_and_pictures_carry_it(
    p: Parameter, tiny_pipeline: Pipeline
) -> None:
    params = tiny_pipeline.params(**{p.name: other(p)})
    assert getattr(params, p.name) == other(p)
    for function in (Pipeline.params, Pipeline.generate, Pipeline.stream):
        assert p.name in inspect.signature(function).parameters
    assert tiny_pipeline.parameters(1, 0, params)[p.name] == other(p)


@each
def test_a_picture_and_a_link_give_it_back(p: Parameter, tiny_pipeline: Pipeline) -> None:
    models = Models.__new__(Models)
    models._names = ["tiny"]
    told = {**tiny_pipeline.parameters(1, 0, changed(p)), "model": "tiny"}
    kept = read.read_parameters(write.png_bytes(Image.new("RGB", (2, 2)), told))
    link = {name: values[0] for name, values in parse_qs(query(told)).items()}
    for values in (kept, link):
        assert recall(values, models).sampling == dataclasses.asdict(changed(p))
    # one that was drawn before there was such a parameter
    del kept[p.name], link[p.name]
    assert recall(kept, models).sampling[p.name] == p.neutral
    assert p.name not in recall(link, models).sampling


@each
def test_captions_tell_of_it_where_it_changes_something(
    p: Parameter, tiny_pipeline: Pipeline
) -> None:
    assert p.describe(other(p)) in caption(tiny_pipeline.parameters(1, 0, changed(p)))
    assert (p.title in NEUTRAL.describe()) == p.captioned


@each
def test_the_page_has_an_input_for_it(p: Parameter) -> None:
    import gradio as gr

    with gr.Blocks():
        boxes = sampling_boxes(changed(p))
    assert list(boxes) == list(INDEX)
    assert boxes[p.name].value == other(p)
    assert boxes[p.name].label.lower() == p.title


@each
def test_every_preset_says_it(p: Parameter, tiny_pipeline: Pipeline) -> None:
    for name in PRESETS:
        assert p.check(preset_values(name, tiny_pipeline)[INDEX[p.name]]) is not None


@each
def test_comparisons_vary_it(p: Parameter) -> None:
    assert AXES[p.name] == p.title
    assert Axis.parse(p.name, f"{p.neutral}, {other(p)}").values == (p.neutral, other(p))


@each
def test_a_checkpoint_keeps_it(p: Parameter, tmp_path: Path) -> None:
    config = AiMConfig(64, 2, sampling=changed(p), num_groups=1)
    values = json.loads(json.dumps(to_values(config)))
    assert from_values(AiMConfig, values, tmp_path) == config
    del values["sampling"][p.name]
    assert from_values(AiMConfig, values, tmp_path).sampling == SamplingParams()
    for bad in ("none such", True, [1]):
        values["sampling"][p.name] = bad
        with pytest.raises(CheckpointError, match=f"{p.name} is {bad!r}".replace("[", r"\[")):
            from_values(AiMConfig, values, tmp_path)


@each
def test_a_table_has_a_column_for_it(p: Parameter) -> None:
    assert RACE.count(p.name) == 1


@each
def test_an_evaluation_says_it_and_goes_on_with_a_set_that_was_begun_before_it_was_there(
    p: Parameter, tiny_pipeline: Pipeline, tmp_path: Path
) -> None:
    assert SampleSet(tiny_pipeline, tmp_path, 2, changed(p)).settings()[p.name] == other(p)
    begun = SampleSet(tiny_pipeline, tmp_path, 2, NEUTRAL)
    settings = begun.settings()
    del settings[p.name]
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    begun.open()
    with pytest.raises(InvalidInput, match=f"its {p.name} is"):
        SampleSet(tiny_pipeline, tmp_path, 2, NEUTRAL.replace(**{p.name: other(p)})).open()
    if p.name != "cfg_scale":
        assert getattr(preset("paper", MODELS["aim-b"].config).params, p.name) == p.neutral
