"""A page on a small random model that draws the page's usual grid, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio_client asks

import pytest
import torch

import aim.ui
from aim.config import MODELS, GPTConfig, VQConfig
from aim.engine import Engine, Server
from aim.errors import HubError
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.ui import models as ui_models
from aim.ui.race import measuring
from pages import Brake, Page, until

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def grid_vq() -> VQ:
    """A random tokenizer of 16x16 codes and 64x64 pixels."""
    torch.manual_seed(1)
    config = VQConfig(
        image_size=64, codebook_size=64, z_channels=32, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1
    )
    return VQ(config).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_pipe(make_model: Callable[..., AiM], grid_vq: VQ) -> Callable[..., tuple[Pipeline, Brake]]:
    """A pipeline on a random model of 256 codes, and the brake of its model; ``running`` and
    ``waiting`` bound its engine.
    """

    def make(running: int = 16, waiting: int = 64) -> tuple[Pipeline, Brake]:
        model, brake = make_model(num_tokens=256), Brake()
        model.step = brake(model.step)  # type: ignore[method-assign]
        pipe = Pipeline(model, grid_vq, "tiny", "0123456789ab")
        pipe._server = Server(Engine(model, running, waiting))
        return pipe, brake

    return make


@pytest.fixture(scope="session")
def make_rival(make_model: Callable[..., AiM]) -> Callable[[str, Brake], Pipeline]:
    """A tiny pipeline in the place of a named model with random weights, of its family, of 16
    codes, and as slow as a brake makes it.
    """
    small = VQConfig(
        image_size=16, codebook_size=64, z_channels=32, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1
    )
    tokenizer = VQ(small).eval().requires_grad_(False)

    def make(name: str, brake: Brake) -> Pipeline:
        model = make_model(num_tokens=16)
        if name.startswith("gpt"):
            same = {
                "vocab_size": model.config.vocab_size,
                "num_classes": model.config.num_classes,
                "classes": model.config.classes,
            }
            model = (
                GPT(GPTConfig(64, 2, 2, num_tokens=16, multiple_of=64, **same))
                .eval()
                .requires_grad_(False)
            )
        model.step = brake(model.step)  # type: ignore[method-assign]
        return Pipeline(model, tokenizer, name, "random", backend="eager")

    return make


@pytest.fixture(scope="session")
def served(
    make_pipe: Callable[..., tuple[Pipeline, Brake]],
    make_rival: Callable[[str, Brake], Pipeline],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Page]:
    """One page for all tests; the hub is out of its reach, and its random weights are tiny."""
    pipe, brake = make_pipe()
    bundled = tmp_path_factory.mktemp("bundled")
    for name in ("aim-s", "gpt-s"):
        (bundled / f"{name}.safetensors").touch()
    rivals = Brake()
    attempts: list[str] = []
    really = ui_models.load

    def load(source: str, device: str, dtype: str, backend: str, ahead: str) -> Pipeline:
        if source == "tiny":
            return pipe
        if source not in MODELS:  # another page's, while this one is open
            return really(source, device, dtype)
        attempts.append(source)
        raise HubError(f"{source} could not be fetched: the hub cannot be reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ui_models, "load", load)
        patch.setattr(ui_models, "bundled_folder", lambda: bundled)
        patch.setattr(ui_models, "random_pipeline", lambda name, *_: make_rival(name, rivals))
        # seconds, for a number that no test asks for
        patch.setattr(import_module("aim.bench.race"), "copy_bandwidth", lambda device: 1e10)
        blocks = aim.ui.build("tiny", backend="eager")
        _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **aim.ui.LAUNCH)
        yield Page(url, pipe, brake, blocks, rivals, attempts)
        blocks.close(verbose=False)
        pipe.close()


@pytest.fixture
def page(served: Page) -> Iterator[Page]:
    """The page at full speed with nobody on it; afterwards nobody may be left in its engine."""
    served.brake.seconds = served.rivals.seconds = 0.0
    assert served.settle()
    yield served
    served.brake.seconds = served.rivals.seconds = 0.0
    assert served.settle(), "a drawing was left behind"
    assert until(lambda: not measuring.running()), "a measurement was left behind"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium. Skips where there is none, but in CI there has to be one."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        reason = f"no browser on the PATH (looked for {', '.join(BROWSERS)})"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()
