"""What a cold load costs, of the page or of a bare one beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

SIZE = {"width": 1280, "height": 900}
# From the first moment on: how far things moved, and when a drawing was first seen to move.
WATCHED = """
  window.shifted = 0;
  window.moved = [];
  window.moving = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((e) => {
    window.shifted += e.value;
    const of = ({ node }) => node?.id || node?.className || node?.nodeName;
    window.moved.push([e.value, ...e.sources.map(of)].join(" "));
  })).observe({ type: "layout-shift", buffered: true });
  const look = () => {
    const shown = document.querySelector("#stage .aim-stage")?.dataset.shown;
    const before = document.querySelector(".aim-before i");
    const line = before?.checkVisibility() && before.getAnimations()[0]?.currentTime > 250;
    if (line || Number(shown) > 0) window.moving = performance.now();
    else requestAnimationFrame(look);
  };
  look();
"""
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


class Load(NamedTuple):
    """Requests, bytes as they came, milliseconds to the first contentful paint and to the first
    move of a drawing (0 for none), layout shift and what shifted.
    """

    requests: int
    size: float
    painted: float
    moving: float
    shifted: float
    moved: list[str]

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.size / 1000:.0f} kB, first contentful paint "
            f"{self.painted:.0f} ms, moving {self.moving:.0f} ms, layout shift {self.shifted:.3f}"
        )


def load(browser: Any, url: str, shown: str) -> Load:
    """Load ``url`` with nothing cached, until ``shown`` is there and nothing more comes."""
    context = browser.new_context(viewport=SIZE)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    network = context.new_cdp_session(tab)
    network.send("Network.enable")
    sizes: list[float] = []
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    tab.add_init_script(WATCHED)
    tab.goto(url)
    tab.wait_for_selector(shown, state="attached")
    tab.wait_for_timeout(1000)
    told = [tab.evaluate(f"() => window.{what}") for what in ("moving", "shifted", "moved")]
    found = Load(len(sizes), sum(sizes), tab.evaluate(PAINTED) or 0, *told)
    context.close()
    return found


def bare() -> gr.Blocks:
    """A page of the same kinds of components, one of each, as Gradio makes it."""
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Markdown("# Bare")
        with gr.Row(), gr.Column(), gr.Group():
            gr.Dropdown(["a", "b"])
            gr.Number(0)
            gr.Checkbox(True)
            gr.Radio(["a", "b"])
            gr.Slider(0, 1)
        with gr.Tabs(), gr.Tab("A"):
            gr.Button("Draw")
            gr.DownloadButton("PNG")
            gr.HTML("<p>Here</p>")
            gr.Image()
            gr.File()
            gr.Textbox()
            with gr.Accordion("More"):
                gr.JSON({})
    return page
