"""The Race tab: two models of one size draw the same on this machine; bars, a replay, and how both
grow.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from aim.errors import AimError
from aim.ui.generate.handlers import Actions
from aim.ui.models import FIRST_CLASS, Models, class_choices
from aim.ui.picker.picker import Picker
from aim.ui.race.elsewhere import measured
from aim.ui.race.handlers import BATCHES, RaceActions, ScalingActions
from aim.ui.race.measuring_handlers import MeasuringActions, MeasuringScreen
from aim.ui.race.pairs import classes, find, offered
from aim.ui.race.recorded import Opening
from aim.ui.race.replay import Replay
from aim.ui.race.scaling_report import memory_chart
from aim.ui.stage.updates import Update, status
from aim.ui.stage.widgets import Choice, Shown, Status

_INTRO = (
    "**AiM**, a Mamba-2 whose memory has a fixed size, against LlamaGen's **Transformer**, whose "
    "cache grows with every code: models of one size draw the same class. They take turns when "
    "they are measured, and you see both times side by side."
)
_RECORDED = " Recorded races of larger models, and against **diffusion**, are in the list."
_SCALING = (
    "What an image costs from 256 to 16,384 codes, and from one image to 64 at once. The answer "
    "depends on the machine."
)


def race_tab(models: Models, drawing: Actions) -> list[MeasuringActions]:
    """Lay out the tab inside the current ``gr.Tab`` and connect it; ``drawing`` are the handlers of
    the Generate tab. Returns its own.
    """
    pairs = offered(models)
    known = [pair for pair in pairs if classes(pair, models)]
    pair_ = next((pair for pair in known if pair.aim == models.default), known[0])
    labels = classes(pair_, models) or []
    recorded = Opening(models.get(models.default)).there
    gr.Markdown(_INTRO + _RECORDED * recorded, elem_classes="aim-about")
    replay = Replay(recorded=recorded, elem_id="replay", elem_classes="aim-flush")
    with gr.Group(), gr.Row():
        pair = Choice(
            [(p.title, p.name) for p in pairs],
            value=pair_.name,
            label="Pair",
            filterable=False,
            elem_id="pair",
            min_width=260,
            scale=3,
        )
        batch = Choice(
            [(str(size), size) for size in BATCHES],
            value=1,
            label="Batch",
            filterable=False,
            elem_id="batch",
            min_width=90,
        )
        label = Picker(
            labels, _first(labels), info="", elem_id="race-class", min_width=160, scale=2
        )
    with gr.Row(elem_classes="aim-start"):
        start = gr.Button("Measure here", variant="primary", elem_id="race", min_width=120)
        stop = gr.Button("Stop", interactive=False, elem_id="race-stop", min_width=80)
    progress = Status(
        status("idle", "Takes a minute or two; the times are this machine's"),
        label="Progress",
        elem_id="race-progress",
        elem_classes="aim-flush",
    )
    memory = Shown(memory_chart(pair_.names), elem_id="memory", elem_classes="aim-flush")
    report = Shown(elem_id="race-report", elem_classes="aim-flush")
    csv, json = _downloads("race")
    measurements = gr.JSON(label="Race", visible=False)

    screen = MeasuringScreen(measurements, progress, csv, json, report, start, stop)
    actions = RaceActions(models, drawing.sessions, screen, replay)

    def switch(name: str, index: Any) -> Update:
        """The classes of the pair that was picked; one that comes with the page is loaded for
        them.
        """
        chosen = find(name, models)
        try:
            choices = classes(chosen, models) or class_choices(models.get(chosen.aim))
        except AimError as error:
            gr.Warning(str(error))
            return {label: gr.update()}
        return {
            label: gr.update(choices=choices, value=_first(choices, index)),
            memory: memory_chart(chosen.names),
        }

    hidden: dict[str, Any] = {"show_progress": "hidden"}
    start.click(
        actions.race,
        [pair, batch, label],
        [*screen, replay],
        validator=actions.check,
        api_name="race",
        concurrency_limit=None,
        **hidden,
    )
    stop.click(actions.stop, None, None, api_name="stop_race", queue=False, **hidden)
    pair.select(switch, [pair, label], [label, memory], api_visibility="private", **hidden)
    _offer(measurements, csv, json)
    if table := measured():
        with gr.Accordion("Larger models and diffusion, on a GPU", open=False):
            Shown(table, elem_id="elsewhere", elem_classes="aim-flush")
    with gr.Accordion(
        "Scaling: longer sequences, larger batches", open=False, elem_id="scaling-section"
    ):
        scaling = _scaling(models, pair)
    return [actions, scaling]


def _scaling(models: Models, pair: gr.Dropdown) -> ScalingActions:
    """Lay out the section on scaling, and connect it."""
    gr.Markdown(_SCALING, elem_classes="aim-about")
    with gr.Row(elem_classes="aim-start"):
        start = gr.Button(
            "Measure scaling on this machine", variant="primary", elem_id="scaling", min_width=200
        )
        stop = gr.Button("Stop", interactive=False, elem_id="scaling-stop", min_width=80)
    progress = Status(
        status("idle", "Takes about two minutes, for the pair chosen above, with random weights"),
        elem_id="scaling-progress",
        elem_classes="aim-flush",
    )
    report = Shown(elem_id="scaling-report", elem_classes="aim-flush")
    csv, json = _downloads("scaling")
    measurements = gr.JSON(label="Scaling", visible=False)
    screen = MeasuringScreen(measurements, progress, csv, json, report, start, stop)
    actions = ScalingActions(models, screen)
    start.click(
        actions.scaling,
        pair,
        list(screen),
        validator=actions.check,
        api_name="scaling",
        concurrency_limit=None,
        show_progress="hidden",
    )
    stop.click(
        actions.stop, None, None, api_name="stop_scaling", queue=False, show_progress="hidden"
    )
    _offer(measurements, csv, json)
    return actions


def _downloads(name: str) -> tuple[gr.DownloadButton, gr.DownloadButton]:
    with gr.Row():
        csv = gr.DownloadButton(
            "Download CSV", visible=False, elem_id=f"{name}-csv", size="md", min_width=120
        )
        json = gr.DownloadButton(
            "Download JSON", visible=False, elem_id=f"{name}-json", size="md", min_width=120
        )
    return csv, json


def _offer(measurements: gr.JSON, csv: gr.DownloadButton, json: gr.DownloadButton) -> None:
    """The files can be taken home while there are measurements."""
    measurements.change(
        lambda value: [gr.update(visible=value is not None)] * 2, measurements, [csv, json],
        queue=False, api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def _first(choices: list[tuple[str, int]], wanted: Any = None) -> int:
    """``wanted`` if it is among ``choices``, else what the Generate tab begins with, else the
    first.
    """
    indices = [index for _, index in choices]
    return wanted if wanted in indices else FIRST_CLASS if FIRST_CLASS in indices else indices[0]
