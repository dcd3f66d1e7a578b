"""The About tab: what this is, the model at hand, papers and licences."""

from __future__ import annotations

import gradio as gr

from aim.engine.backend import describe
from aim.ui.assets import text
from aim.ui.models import Models


def _card(models: Models) -> str:
    pipe = models.get(models.default)
    config, vq = pipe.model.config, pipe.tokenizer.config
    count = sum(weight.numel() for weight in pipe.model.parameters())
    rows = {
        "Model": f"{pipe.name}, version {pipe.version}",
        "Network": (
            f"{config.n_layer} layers of width {config.d_model}, {count / 1e6:.1f} M parameters"
        ),
        "Classes": f"{len(pipe.classes)} of ImageNet's 1000",
        "Picture": (
            f"{vq.output_size}×{vq.output_size} pixels, {vq.grid}×{vq.grid} codes out of "
            f"{vq.codebook_size}"
        ),
        "Runs on": (
            f"{pipe.device}, {str(pipe.dtype).removeprefix('torch.')}, "
            f"{describe(pipe.backend, pipe.backend_reason)}"
        ),
    }
    facts = "\n".join(f"- {name}: **{value}**" for name, value in rows.items())
    limits = (
        "It has seen small pictures of few classes: expect the right colours and shapes, not "
        "photographs."
        if vq.output_size < 256
        else ""
    )
    return f"## The model on this page\n\n{facts}\n\n{limits}"


def about_tab(models: Models) -> None:
    """Lay out the tab inside the current ``gr.Tab``."""
    for part in (text("about.md"), _card(models), text("sources.md")):
        gr.Markdown(part, elem_classes="aim-about")
