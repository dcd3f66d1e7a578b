"""The About tab: what this is, the model at hand, papers and licences."""

from __future__ import annotations

import gradio as gr

from aim.engine.backend import describe
from aim.ui.models import Models

_INTRO = """
## What you are looking at

AiM draws a picture as a grid of codes, one after another, top left to bottom right. A **Mamba-2** network, a recurrent model
whose memory has a fixed size, reads the codes so far and the class, and says how likely each next code is; one is drawn by chance. A second
network, the tokenizer, turns the codes into pixels. Watching the grid fill in is watching the model think.

- **Guidance** runs the model twice, with and without the class, and moves away from "without". More guidance: more typical, less varied.
- **One seed, one picture**: the same seed, class and settings give the same picture. In float32 it is the same whoever else is drawing
  at the time; in bfloat16 the number of people may change details.
- **Everybody shares one batch**: people who draw at the same time are computed together, and a full batch makes a line.
"""

_SOURCES = """
## Sources and licences

- AiM: *Scalable Autoregressive Image Generation with Mamba*, Li et al. 2024, arXiv 2408.12245. The larger models are its authors' weights.
- Mamba-2: *Transformers are SSMs*, Dao and Gu 2024, arXiv 2405.21060.
- Tokenizer: LlamaGen, *Autoregressive Model Beats Diffusion*, Sun et al. 2024, arXiv 2406.06525.
- Data: ImageNet (Tiny ImageNet, 64×64, for the bundled model).

The code is under the MIT licence. The bundled weights were trained on ImageNet pictures and are for **non-commercial research** alone, as
ImageNet's terms ask; weights from the hub have their own licence there.
"""


def _card(models: Models) -> str:
    pipe = models.get(models.default)
    config, vq = pipe.model.config, pipe.tokenizer.config
    count = sum(weight.numel() for weight in pipe.model.parameters())
    rows = {
        "Model": f"{pipe.name}, version {pipe.version}",
        "Network": f"{config.n_layer} layers of width {config.d_model}, {count / 1e6:.1f} M parameters",
        "Classes": f"{len(pipe.classes)} of ImageNet's 1000",
        "Picture": f"{vq.output_size}×{vq.output_size} pixels, {vq.grid}×{vq.grid} codes out of {vq.codebook_size}",
        "Runs on": f"{pipe.device}, {str(pipe.dtype).removeprefix('torch.')}, {describe(pipe.backend, pipe.backend_reason)}",
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
    for text in (_INTRO, _card(models), _SOURCES):
        gr.Markdown(text, elem_classes="aim-about")
