"""The Generate tab: pick a class, watch it being drawn, take the picture home."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import gradio as gr
from gradio.events import api

from aim.errors import AimError
from aim.pipeline import Pipeline
from aim.ui.actions import Actions, Screen, Update, status
from aim.ui.models import Models
from aim.ui.widgets import Choice, Range, Status, Whole, drawn

# A click into the class selects its text, so that typing searches at once instead of being added to the name that is there.
SELECT_ON_FOCUS = """() => {
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches("#class input")) setTimeout(() => target.select());
  });
}"""
FIRST_CLASS = 1  # goldfish, where the model knows it
PREVIEW_EVERY = 8


def class_choices(pipe: Pipeline) -> list[tuple[str, int]]:
    """(title, ImageNet index) of every class that the model knows, by name."""
    return sorted(((pipe.title(index), index) for index in pipe.classes), key=lambda choice: choice[0].casefold())


def first_class(pipe: Pipeline, wanted: Any = FIRST_CLASS) -> int:
    """``wanted`` if the model knows it, else its first class."""
    return wanted if wanted in pipe.classes else pipe.classes[0]


def describe(pipe: Pipeline) -> str:
    """One line about what the model draws, in Markdown."""
    size, codes = pipe.tokenizer.config.image_size, pipe.model.config.num_tokens
    previews = " Previews are rough here, one colour a code." if pipe.rough_previews else ""
    return (
        f"**{pipe.name}** draws {size}×{size} pixels as {codes} codes, one after another; dots are codes not drawn yet.{previews} "
        f"The picture is shown enlarged and smoothed; the PNG has its own {size}×{size} pixels."
    )


def generate_tab(models: Models) -> Actions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it. Returns its handlers."""
    pipe = models.get(models.default)
    sampling = pipe.sampling
    with gr.Row(elem_classes="aim-columns"):
        with gr.Column(scale=4, min_width=300, elem_classes="aim-controls"):
            with gr.Group(elem_classes="aim-first"):
                label = Choice(class_choices(pipe), value=first_class(pipe), label="Class", info="Type to search.", elem_id="class")
                dice = gr.Button("Random class", size="sm", elem_id="random-class")
            with gr.Row(elem_classes="aim-first"):
                start = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
                stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=80)
            with gr.Group():
                with gr.Row():
                    seed = Whole(0, precision=0, label="Seed", elem_id="seed", min_width=120)
                    random_seed = gr.Checkbox(True, label="Random", info="A new seed each time.", elem_id="random-seed", min_width=120)
                reuse = gr.Button("Reuse last seed", size="sm", interactive=False, elem_id="reuse-seed")
            with gr.Accordion("Sampling", open=True):
                cfg_scale = Range(0, 15, sampling.cfg_scale, step=0.05, label="Guidance", info="Pull towards the class; 1 is none.")
                temperature = Range(0, 2, sampling.temperature, step=0.01, label="Temperature", info="0 takes the likeliest.")
                top_p = Range(0.01, 1, sampling.top_p, step=0.01, label="Top-p", info="Probability kept; 1 is all.")
                top_k = Whole(sampling.top_k, precision=0, minimum=0, label="Top-k", info="Codes kept; 0 is all.")
            with gr.Accordion("Model and preview", open=True):
                model = Choice(models.choices, value=models.default, label="Model", filterable=False, elem_id="model")
                preview_every = Range(0, 64, PREVIEW_EVERY, step=1, label="Codes per preview", info="0 shows only the finished picture.")
        with gr.Column(scale=5, min_width=300, elem_classes="aim-result"):
            picture = drawn("picture")
            progress = Status(status("idle", "Pick a class and press Generate"), label="Progress", elem_id="progress")
            with gr.Row(elem_classes="aim-narrow"):
                png = gr.DownloadButton("Download PNG", interactive=False, elem_id="png", size="md", min_width=120)
                gif = gr.DownloadButton("Download GIF", interactive=False, elem_id="gif", size="md", min_width=120)
            note = gr.Markdown(describe(pipe), elem_classes=["aim-narrow", "aim-note"], elem_id="note")
            with gr.Accordion("Parameters (also inside the PNG)", open=False, elem_classes="aim-narrow"):
                parameters = gr.JSON(label="Parameters", show_label=False, elem_id="parameters")

    actions = Actions(models, Screen(picture, progress, png, gif, parameters, start, stop))
    current = gr.State(models.default)
    inputs = [label, model, cfg_scale, temperature, top_k, top_p, seed, random_seed, preview_every]
    settings = [model, label, cfg_scale, temperature, top_k, top_p, note, current]

    def switch(name: str, index: Any, old: str) -> Iterator[Update]:
        """Load the model that was picked, and take over its classes and defaults; if it cannot be had, keep the old one."""
        try:
            future = models.fetch(name)
            while not future.done():
                yield {progress: status("loading", f"Loading {models.title(name)} …")}
                wait([future], timeout=0.5)
            new = future.result()
        except AimError as error:
            message = f"{name} could not be loaded, so {old} stays in use: {error}"
            gr.Warning(message)
            yield {model: old, progress: status("failed", message)}
            return
        own = new.sampling
        yield {
            label: gr.update(choices=class_choices(new), value=first_class(new, index)),
            **{cfg_scale: own.cfg_scale, temperature: own.temperature, top_k: own.top_k, top_p: own.top_p},
            **{note: describe(new), current: name, progress: status("idle", f"{new.name} is ready")},
        }

    hidden: dict[str, Any] = {"show_progress": "hidden"}
    start.click(
        actions.generate, inputs, list(actions.screen), validator=actions.check, api_name="generate", concurrency_limit=None, **hidden
    )
    stop.click(actions.stop, None, None, api_name="stop", queue=False, **hidden)
    dice.click(actions.random_class, model, label, api_name="random_class", **hidden)
    model.select(switch, [model, label, current], [*settings, progress], api_visibility="private", **hidden)
    parameters.change(
        lambda value: [gr.update(interactive=value is not None)] * 3, parameters, [png, gif, reuse],
        queue=False, api_visibility="private", **hidden,
    )  # fmt: skip
    reuse.click(lambda value: (value["seed"], False), parameters, [seed, random_seed], queue=False, api_visibility="private", **hidden)
    api(actions.classes, api_name="classes")
    return actions
