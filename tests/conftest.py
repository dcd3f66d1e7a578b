"""Small random models that every test may share; nothing here is trained.

Several workers on few cores: each keeps to one thread, or they would spin while they wait for each
other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import aim
from aim.checkpoint import save_model, save_tokenizer
from aim.config import VQConfig
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.training.perceptual import LPIPS
from tests.tiny import random_model

torch.set_num_threads(1)
# nobody outside is called: no certificates, which httpx would read at every request
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run without a GPU, at tiny sizes
    with contextlib.suppress(ImportError):
        from tests.interpreting import hurry

        hurry()

# a grid of 4x4
TINY_VQ = VQConfig(image_size=16, codebook_size=64, z_channels=32, ch=32, ch_mult=(1, 2, 2))


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """float32 means float32 on a GPU, too."""
    parts: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    yield
    for part, allowed in zip(parts, before, strict=True):
        part.allow_tf32 = allowed


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays: it is not to be looked through at every collection


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., AiM]:
    """A random tiny model, with changes to its configuration; unlike a fresh one, state, class and
    codes all weigh in on its logits.
    """
    return random_model


@pytest.fixture(scope="session")
def tiny_model() -> AiM:
    """A random prior in float32; read only."""
    return random_model()


@pytest.fixture(scope="session")
def tiny_vq() -> VQ:
    """A random tokenizer in float32; read only."""
    torch.manual_seed(1)
    return VQ(TINY_VQ).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def larger_vq() -> VQ:
    """A random tokenizer that takes 16x16 pixels and gives 32x32, of the codes of ``tiny_vq``."""
    torch.manual_seed(1)
    config = dataclasses.replace(TINY_VQ, decoder_ch_mult=(1, 1, 2, 2))
    return VQ(config).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def smooth_images() -> Callable[..., torch.Tensor]:
    """(N, 3, S, S) uint8, easy to reconstruct: of a number, a size and a seed."""

    def smooth(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
        coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 255
        large = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
        return large.round().to(torch.uint8)

    return smooth


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: AiM, tiny_vq: VQ, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny.safetensors and its tokenizer, exact in float32; read only."""
    folder = tmp_path_factory.mktemp("tiny", numbered=False)
    save_tokenizer(folder / "tiny-vq.safetensors", tiny_vq, {}, torch.float32)
    save_model(
        folder / "tiny.safetensors", tiny_model, {"tokenizer": "tiny-vq.safetensors"}, torch.float32
    )
    return folder


@pytest.fixture
def tiny_pipeline(tiny_model: AiM, tiny_vq: VQ) -> Iterator[Pipeline]:
    """A pipeline of both, in float32 on the CPU, with an engine of its own; afterwards nothing may
    be left in it.
    """
    pipe = Pipeline(tiny_model, tiny_vq, "tiny", "0123456789ab")
    yield pipe
    pipe.close()


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a process of its own, in an empty folder: arguments as of ``python``; the
    package need not be installed.
    """

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(aim.__file__).parent.parent)}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def lpips_weights() -> dict[str, Tensor]:
    """Random ones under the names of LPIPS's file."""
    torch.manual_seed(6)
    network = LPIPS()
    weights = {n: w.detach() for n, w in network.state_dict().items() if n.startswith("features")}
    weights = {n: w + 0.05 * torch.rand(w.shape) for n, w in weights.items()}
    lins = {f"lin{i}.weight": torch.rand(w.shape) for i, w in enumerate(network.lins)}
    return {**weights, **lins, "classifier.1.bias": torch.zeros(3)}


@pytest.fixture(scope="session")
def lpips_file(lpips_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of LPIPS; read only."""
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(lpips_weights, path)
    return path
