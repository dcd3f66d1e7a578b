"""The public face: a model, its tokenizer and its classes. ``load``, ``generate``, ``stream``."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import torch
from PIL import Image

from aim._version import __version__
from aim.checkpoint import load_model
from aim.checks import whole
from aim.classes import Labels
from aim.codec import Codec
from aim.config import MAX_SEED, SAMPLING, SamplingParams, check_seed
from aim.device import prepare, threads
from aim.engine import Engine, Request, Server, Service
from aim.engine.backend import check, pick
from aim.engine.requests import Mix
from aim.errors import InvalidInput
from aim.models.prior import Prior, misfit
from aim.models.vq.model import VQ
from aim.parameters import named
from aim.settings import Settings
from aim.stream import Frame, Stream, in_order

__all__ = ["Frame", "Pipeline", "Stream", "load"]

_log = logging.getLogger("aim")

# an index (NumPy's and PyTorch's, too), a name, or a mapping from such to weights: a mix
Label: TypeAlias = SupportsIndex | str | Mapping[int | str, float]


class Pipeline(Codec):
    """A model with its tokenizer and the names of its classes. Everything here may be called from
    several threads.

    Classes are ImageNet indices or names; a model with classes of its own takes their names and
    indices. A mapping from classes to weights is a mix of them. What is drawn goes through one
    engine, ``server``, that batches whatever is asked for at the same time, up to
    ``max_requests``, with ``max_waiting`` more in line; both may be set before it starts.
    ``backend`` as in ``from_pretrained``.
    """

    def __init__(
        self,
        model: Prior,
        tokenizer: VQ,
        name: str = "unnamed",
        version: str = "",
        backend: str = "auto",
        max_requests: int = 16,
        ahead: str | int = "auto",
    ) -> None:
        config = model.config
        if why := misfit(config, tokenizer.config):
            raise InvalidInput(f"{why}; a model draws one size, that of its own tokenizer")
        self.model, self.name, self.version = model, name, version
        self.device, self.dtype = model.device, model.dtype
        self.where = str(model.device), str(model.dtype).removeprefix("torch.")  # of who draws
        self.sampling: SamplingParams = config.sampling
        self.labels = Labels.of(config)
        self.classes: tuple[int, ...] = self.labels.indices
        started = time.perf_counter()
        self._backend, self.max_requests = pick(model, backend, ahead), max_requests
        self.trial_seconds = time.perf_counter() - started  # on a GPU kernels were compiled
        tokenizer.fusible = self.backend != "eager"
        super().__init__(tokenizer)
        self.max_waiting = 64
        self.threads = Settings.from_env().threads  # of ``server``, as ``Server`` takes them
        self._server: Service | None = None
        self._start: Callable[[Pipeline], Service] = lambda pipe: Server(
            pipe._backend.engine(pipe.max_requests, pipe.max_waiting), pipe.threads
        )
        self._end: Callable[[], object] = int  # of the server, at exit or when nobody holds this
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        name = f"{self.name} {self.version}".strip()
        return f"<Pipeline {name}, {self.where[1]} on {self.device}, {self.backend}>"

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "aim-s",
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        backend: str = "auto",
        max_requests: int = 16,
        ahead: str | int = "auto",
    ) -> Pipeline:
        """The pipeline of a model: a name ("aim-s" is bundled, "aim-b" ... are on the hub), a
        folder, a file or a hub id. ``aim.load`` is this.

        ``device`` is auto (CUDA, else Apple MPS, else CPU), cpu, cuda, cuda:1 or mps, or PyTorch's;
        ``dtype`` auto, float32 or bfloat16, or PyTorch's, auto being bfloat16 where the device
        computes in it natively; ``backend`` auto, gpu (Triton kernels, captured in CUDA graphs),
        cpu (packed products), mamba-ssm (that package's kernels and causal-conv1d's, as far as they
        import) or eager, auto being gpu or cpu; up to ``max_requests`` images are drawn at once.
        On a CPU an image is drawn with all cores, and PyTorch is left one less for the rest, or
        both take AIM_THREADS. ``ahead``, auto, off, 2, 4, 8 or 16, is how many codes of an image a
        step looks at, guessing what comes next: in float32 the same image in fewer steps. Auto is
        by the number of images, and off in float32; mamba-ssm cannot. InvalidInput, CheckpointError
        or HubError say what is wrong.
        """
        where, what = prepare(device, dtype, Settings.from_env().threads)
        check(backend, where)
        with threads(1):
            return cls(*load_model(source, where, what), backend, max_requests, ahead)

    @property
    def backend(self) -> str:
        """How a step is computed: gpu, cpu, mamba-ssm or eager."""
        return self._backend.name

    @property
    def backend_reason(self) -> str:
        """Why it is not "gpu" on a GPU, empty where it is or nobody would expect it."""
        return self._backend.reason

    def engine(self, max_requests: int) -> Engine:
        """An engine of the caller's own, beside ``server``; arguments as of ``Engine``."""
        return self._backend.engine(max_requests)

    @property
    def server(self) -> Service:
        """Who draws for this pipeline: an engine and its thread, or what ``use_server`` was given.
        It starts at the first use, and anew where it has ended.
        """
        with self._lock:
            if self._server is not None and not self._server.alive:
                _log.error("the engine's thread of %s has ended; another one begins", self.name)
                self._server = None
            if self._server is None:
                self._server = self._start(self)
                self._end = weakref.finalize(self, self._server.close)
            return self._server

    @property
    def started(self) -> Service | None:
        """``server`` if it was started."""
        return self._server

    def use_server(self, start: Callable[[Pipeline], Service]) -> None:
        """Let what ``start`` returns draw, in place of an engine here; before the first use."""
        self._start = start

    def close(self) -> None:
        """Cancel what is being drawn and end who draws; the next request starts another."""
        with self._lock:
            self._server, end = None, self._end
        end()

    def resolve(self, label: SupportsIndex | str) -> int:
        """The index of a class given by index or name; InvalidInput names the nearest that the
        model knows.
        """
        return self.labels.resolve(label)

    def title(self, index: int) -> str:
        """What to call a class: "goldfish (1)"."""
        return self.labels.title(index)

    def row(self, index: int) -> int:
        """The model's row of class ``index``, as ``resolve`` returns it."""
        return self.labels.row(index)

    def _row(self, label: Label) -> int | Mix:
        """The model's row of a class, or the mix of a mapping from classes to weights."""
        if isinstance(label, Mapping):
            return [(self.row(self.resolve(one)), weight) for one, weight in label.items()]
        return self.row(self.resolve(label))

    @named(SAMPLING)
    def params(self, **sampling: Any) -> SamplingParams:
        """Sampling parameters by name; what is left out is the model's own default. InvalidInput
        names a value out of range.
        """
        return self.sampling.replace(**sampling)

    def parameters(self, label: int | str, seed: int, params: SamplingParams) -> dict[str, Any]:
        """All that is needed to draw an image again, to be kept with it."""
        index = self.resolve(label)
        return {
            "model": self.name,
            "version": self.version,
            "class": index,
            "class_name": self.labels.name(index),
            "seed": check_seed(seed),
            **asdict(params),
            **dict(zip(("device", "dtype"), self.where, strict=True)),
            "package": f"aim {__version__}",
        }

    @named(SAMPLING)
    def stream(
        self,
        label: Label,
        seed: int = 0,
        preview_every: int = 16,
        *,
        explain: bool = False,
        alone: bool = False,
        prefix: Sequence[int] | np.ndarray = (),
        **sampling: Any,
    ) -> Stream:
        """Draw one image and show it grow: a frame every ``preview_every`` codes (0 for none), the
        last one with the image.

        Sampling parameters left out are the model's own; ``explain``, ``alone`` and ``prefix``, the
        codes that the image begins with, as in ``Request``. With the first rows of a drawing as its
        prefix, and its class, seed and parameters, it ends as before, in float32; with others it
        goes another way from there. InvalidInput for a class or value that will not do.
        """
        row = self._row(label)
        request = Request(row, self.params(**sampling), seed, preview_every, explain, alone, prefix)
        return self.open([request], images=True)

    def open(self, requests: Sequence[Request], images: bool = False) -> Stream:
        """The frames of many requests, drawn together as far as there is room; without ``images``
        codes alone, for whoever shows them in a way of their own (``show``, ``pictures``).
        """
        total = self.model.config.num_tokens
        image = {"image": self.show} if images else {}
        return Stream(lambda: self.server, requests, total, **image)

    def complete(
        self, image: Image.Image | bytes | str | Path, rows: int, label: Label, **settings: Any
    ) -> Stream:
        """Keep the first ``rows`` rows of a picture's codes, exactly, and draw the rest as class
        ``label``; ``settings`` as of ``stream``.

        InvalidInput for what is no picture, and for rows that leave nothing to keep or to draw.
        """
        grid = self.tokenizer.config.grid
        kept = whole("rows", rows, 1, grid - 1) * grid
        return self.stream(label, prefix=self.encode(image)[:kept], **settings)

    @named(SAMPLING)
    def generate(
        self,
        labels: Sequence[Label] | Label,
        seed: int = 0,
        *,
        progress: Callable[[int, int], None] | None = None,
        size: int | None = None,
        **sampling: Any,
    ) -> list[Image.Image]:
        """RGB images of ``labels``, drawn together; image i with ``seed + i``, so that it is the
        same when made alone with that.

        ``progress`` is called with the codes drawn and their total; ``size`` as of ``pictures``,
        errors as in ``stream``.
        """
        return self.pictures(self.draw(labels, seed, self.params(**sampling), progress), size)

    def draw(
        self,
        labels: Sequence[Label] | Label,
        seed: int = 0,
        params: SamplingParams | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """The codes (num_tokens,) of one image after another, as ``generate`` draws them. Closing
        the iterator cancels the rest.
        """
        asked: Any = labels  # several, or one: a text and a mapping have no dimension either
        asked = asked if np.ndim(asked) else [asked]
        seed = check_seed(seed)
        if seed + len(asked) - 1 > MAX_SEED:
            raise InvalidInput(
                f"seed is {seed}, and {len(asked)} images take as many seeds; the last one must "
                f"be at most {MAX_SEED}"
            )
        rows = [self._row(label) for label in asked]
        every = 16 if progress else 0
        return self.draw_all(
            [Request(row, params or self.sampling, seed + i, every) for i, row in enumerate(rows)],
            progress,
        )

    def draw_all(
        self, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None
    ) -> Iterator[np.ndarray]:
        """The codes (num_tokens,) of one request after another, drawn together as far as there is
        room; ``progress`` as of ``generate``.
        """
        return in_order(self.open(requests), progress)


load = Pipeline.from_pretrained
