"""The page: what a person sees in the browser. The only place that imports gradio."""

from __future__ import annotations

import signal
import sys
import time
from importlib.util import find_spec
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from aim.errors import AimError
from aim.pipeline import Pipeline
from aim.settings import Settings
from aim.ui import drawings, front
from aim.ui.about import about_tab
from aim.ui.assets import text
from aim.ui.compare.layout import compare_tab
from aim.ui.explore.layout import explore_tab
from aim.ui.gate import Gate
from aim.ui.generate.layout import generate_tab
from aim.ui.generate.recorded import opening
from aim.ui.health import ROUTES, Health
from aim.ui.inside.layout import inside_tab
from aim.ui.models import Models
from aim.ui.page import Page
from aim.ui.picker import picker
from aim.ui.race import recorded
from aim.ui.race.layout import race_tab
from aim.ui.settings.layout import settings_column
from aim.ui.theme import THEME
from aim.ui.visit.layout import visit_below

__all__ = ["LAUNCH", "build", "launch", "serve"]

_TITLE = "AiM"
_SKIP = '<a class="aim-skip" href="#tabs">Skip the settings</a>'  # for whoever goes by keyboard
_LOOK = 0.1  # seconds between two looks at whether to end

_STYLES = (
    "stage/page.css",
    "stage/stage.css",
    "picker/picker.css",
    "inside/inside.css",
    "settings/settings.css",
    "visit/visit.css",
    "explore/explore.css",
    "race/race.css",
)

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": "".join(map(text, _STYLES)),
    "enable_monitoring": False,
    "ssr_mode": False,
    "run_history": False,
    "footer_links": ["api", "settings"],
    "app_kwargs": {
        "routes": [
            *ROUTES,
            *drawings.ROUTES,
            *picker.ROUTES,
            *front.ROUTES,
            *recorded.ROUTES,
        ],
        "middleware": [Middleware(front.Front), Middleware(Gate)],
    },
}
"""What ``gr.Blocks.launch`` needs for this page, for those who call it themselves."""


def build(
    source: str = "aim-s",
    *,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    replicas: tuple[int, int] = (0, 0),
    cluster: str = "",
) -> gr.Blocks:
    """The page for ``source``: a model's name, a folder, a file or a hub id. Loads it, and warms it
    up in the background. ``replicas``, the least and the most, and ``cluster`` as in ``Settings``.

    Raises what ``aim.load`` raises. Launch it with ``launch(**LAUNCH)``, or call ``aim.ui.launch``
    at once.
    """
    zero = Settings.from_env().zero
    models = Models(source, device, dtype, backend, zero, replicas, cluster)
    with Page(title=_TITLE, analytics_enabled=False) as page:
        page.limits = models.line.limits
        page.drawings = drawings.Drawings(models)
        pipe = models.get(models.default)
        played, offered = opening(pipe)
        page.card = front.Card(pipe, _told(pipe), played["image"] if played else "")
        page.raced = recorded.Opening(pipe)
        head = gr.Markdown(_headline(pipe, 0), elem_classes="aim-head")
        with gr.Row(elem_classes="aim-page"):
            boxes, settings = settings_column(models, offered)
            with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
                with gr.Tab("Generate", id="generate"):
                    actions = generate_tab(models, page.drawings, boxes, played)
                with gr.Tab("Inside", id="inside"):
                    looking = inside_tab(models, actions, boxes)
                with gr.Tab("Explore", id="explore"):
                    exploring = explore_tab(models, actions, boxes)
                with gr.Tab("Compare", id="compare"):
                    comparing = compare_tab(models, boxes)
                with gr.Tab("Race", id="race", elem_classes="aim-alone"):
                    racing = race_tab(models, actions)
                with gr.Tab("About", id="about", elem_classes="aim-alone"):
                    about_tab(models)
            visit_below(boxes, settings, looking, exploring)
        page.load(None, js=text("stage/page.js"))
        page.load(
            settings.opened, None, boxes.outputs, show_progress="hidden", api_visibility="private"
        ).success(None, js=text("settings/opened.js"), api_visibility="private")
        page.load(
            lambda: _headline(models.get(models.default), page.health.rate), None, head,
            queue=False, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        page.unload(actions.stop)
        page.unload(comparing.stop)
        for measuring in racing:
            page.unload(measuring.stop)
    page.health = Health(models)
    # everybody at once: the engine batches, and keeps the line
    page.queue(default_concurrency_limit=page.threads)
    page.health.warm_up()
    return page


def launch(
    source: str = "aim-s",
    *,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    replicas: tuple[int, int] = (0, 0),
    cluster: str = "",
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    mcp: bool = False,
) -> None:
    """Build the page, serve it as ``serve`` does, and open it in a browser where there is somebody
    to see it.

    Without ``port``, the first free one from 7860, or GRADIO_SERVER_PORT. With ``mcp`` its
    endpoints are tools of an MCP server, too.
    """
    if mcp:
        check_mcp()
    page = build(
        source, device=device, dtype=dtype, backend=backend, replicas=replicas, cluster=cluster
    )
    serve(
        page,
        server_name=host,
        server_port=port,
        share=share,
        inbrowser=_at_a_desktop(),
        mcp_server=mcp,
    )


def serve(page: Any, **settings: Any) -> None:
    """Launch a page with ``LAUNCH`` and these settings, and keep it until this process is told to
    end. SIGTERM gives who draws AIM_DRAIN_SECONDS to finish, while nobody else is let in; Ctrl-C,
    or a second signal, does not. Whoever is left hears that it was stopped.
    """
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # also as the first process of a container, which ignores what it does not handle
        signal.signal(number, lambda number, _: ended.append(number))
    page.launch(prevent_thread_lock=True, **LAUNCH, **settings)
    while not ended:
        time.sleep(_LOOK)
    models = page.health.models
    line = models.line
    line.ending, end = True, time.monotonic() + page.limits.drain_seconds
    while line.busy and len(ended) < 2 and ended[0] == signal.SIGTERM and time.monotonic() < end:
        time.sleep(_LOOK)
    if left := line.end():
        print(f"{left} drawings were stopped, as this server ends.")
    page.close(verbose=False)
    for pipe in models.loaded:  # a thread that computes while Python ends would crash it
        pipe.close()
    page.health.warming.join(5)


def check_mcp() -> None:
    """AimError where Gradio's MCP server cannot start."""
    if find_spec("mcp") is None:
        raise AimError('the MCP server needs the package mcp: pip install "gradio[mcp]"')


def _at_a_desktop() -> bool:
    """Whether this was started from a terminal, by somebody who can see a browser's window."""
    return sys.stdout.isatty() and (
        sys.platform in ("darwin", "win32") or Settings.from_env().screen
    )


def _headline(pipe: Pipeline, rate: float) -> str:
    """What stands above the page, in Markdown, with a link past the settings."""
    return f"# AiM\n{_told(pipe, rate)} {_SKIP}"


def _told(pipe: Pipeline, rate: float = 0) -> str:
    """What happens here, in a line, and at how many codes a second; 0 for not known yet."""
    speed = f", here about {rate:,.0f} a second" if rate else ""
    codes = pipe.model.config.num_tokens
    what = f"A Mamba-2 model draws a picture as {codes} codes, one after another{speed}."
    return f"{what} {recorded.sentence(pipe)}".rstrip()
