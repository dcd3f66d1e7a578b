"""The public face: a model, its tokenizer and its classes. ``load``, ``generate``, ``stream``."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from aim import imagenet, media
from aim._version import __version__
from aim.checkpoint import load_model
from aim.config import MAX_SEED, SamplingParams, check_seed
from aim.device import prepare
from aim.engine import Engine, Event, Failed, Finished, Progress, Queued, Request, Server, Started, Subscription
from aim.errors import AimError, GenerationError, InvalidInput, QueueFull
from aim.models.aim import AiM
from aim.models.preview import Previewer
from aim.models.vq import VQ
from aim.settings import Settings


@dataclass(frozen=True, eq=False)
class Frame:
    """A moment of a drawing: ``codes`` (step,) of ``total`` are drawn, after ``seconds`` of model time.

    ``image`` is None where there is nothing new to see, RGBA and transparent where nothing is drawn yet, RGB at the end.
    ``place`` is the place in line, 0 for a request that runs.
    """

    step: int
    total: int
    codes: np.ndarray
    image: Image.Image | None
    seconds: float
    place: int = 0


class Stream(Iterator[Frame]):
    """The frames of one drawing, as ``Pipeline.stream`` returns it.

    The first frame is empty and costs nothing; the request is submitted after it, so QueueFull and GenerationError may come
    from any later one. A client that is slow gets the newest frame. ``close`` may be called from any thread, ends the drawing
    within one step, and with it the stream; letting go of the stream does the same.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self.request = request
        self._pipeline = pipeline
        self._subscription: Subscription | None = None
        self._begun = self._closed = False

    def __next__(self) -> Frame:
        # no generator: it would be in a cycle with this object, and letting go would cancel only when that is collected
        pipeline, total = self._pipeline, self._pipeline.model.config.num_tokens
        blank = Frame(0, total, np.zeros(0, np.int64), None, 0.0)
        if not self._begun:
            self._begun = True
            return blank
        if self._subscription is None and not self._closed:
            self._subscription = pipeline.server.stream(self.request)
        if self._subscription is None or self._closed:
            self.close()  # again: another thread may have, while there was no subscription to close
            raise StopIteration
        event = next(self._subscription)
        if self._closed:
            raise StopIteration
        if isinstance(event, (Queued, Started)):
            return replace(blank, place=event.place if isinstance(event, Queued) else 0)
        if isinstance(event, Progress):
            return Frame(event.step, total, event.codes, pipeline.preview(event.codes), event.seconds)
        if not isinstance(event, Finished):
            _fail(event)
        return Frame(total, total, event.codes, pipeline.picture(event.codes), event.seconds)

    def close(self) -> None:
        """Stop drawing."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()


class Pipeline:
    """A model with its tokenizer and the names of its classes. Everything here may be called from several threads.

    Classes are ImageNet indices or names; a model without ImageNet classes takes its own indices. What is drawn goes through
    one engine, ``server``, that batches whatever is asked for at the same time.
    """

    def __init__(self, model: AiM, tokenizer: VQ, name: str = "unnamed", version: str = "") -> None:
        config = model.config
        self.model, self.tokenizer = model, tokenizer
        self.name, self.version = name, version
        self.device, self.dtype = model.device, model.dtype
        self.sampling: SamplingParams = config.sampling
        self.classes: tuple[int, ...] = config.classes or tuple(range(config.num_classes))
        self._named = bool(config.classes) or config.num_classes == len(imagenet.classes())
        self._rows = {index: row for row, index in enumerate(self.classes)}
        self._previewer = Previewer(tokenizer)
        self._server: Server | None = None
        self._end: Callable[[], object] = int  # ends the server, at exit or when nobody holds the pipeline any more
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(cls, source: str | Path = "aim-s", device: str = "auto", dtype: str = "auto") -> Pipeline:
        """The same as ``aim.load``."""
        return load(source, device, dtype)

    @property
    def server(self) -> Server:
        """The engine of this pipeline and its thread, which start at the first use."""
        with self._lock:
            if self._server is None:
                self._server = Server(Engine(self.model))
                self._end = weakref.finalize(self, self._server.close)
            return self._server

    @property
    def rough_previews(self) -> bool:
        """Whether the decoder is too slow for previews on this device, so that they show one colour a code."""
        return self._previewer.rough

    def close(self) -> None:
        """Cancel what is being drawn and end the engine's thread; the next request starts another."""
        with self._lock:
            self._server, end = None, self._end
        end()

    def resolve(self, label: int | str) -> int:
        """The index of a class given by index or name; InvalidInput names the nearest that the model knows."""
        if self._named:
            return imagenet.resolve(label, known=self.classes)
        if isinstance(label, (int, np.integer, str)) and not isinstance(label, bool):
            text = str(label).strip()
            if text.isascii() and text.isdigit() and int(text) in self._rows:
                return int(text)
        raise InvalidInput(f"class is {label!r}; {self.name} has no ImageNet classes, only its own 0 ... {len(self.classes) - 1}")

    def title(self, index: int) -> str:
        """What to call a class: "goldfish (1)"."""
        return imagenet.title(index) if self._named else f"class {index}"

    def row(self, index: int) -> int:
        """The model's row of class ``index``, as ``resolve`` returns it."""
        return self._rows[index]

    def params(
        self, cfg_scale: float | None = None, temperature: float | None = None, top_k: int | None = None, top_p: float | None = None
    ) -> SamplingParams:
        """Sampling parameters; what is left out is the model's own default. InvalidInput names a value out of range."""
        return self.sampling.replace(cfg_scale=cfg_scale, temperature=temperature, top_k=top_k, top_p=top_p)

    def parameters(self, label: int | str, seed: int, params: SamplingParams) -> dict[str, Any]:
        """All that is needed to draw an image again, to be kept with it."""
        index = self.resolve(label)
        return {
            "model": self.name,
            "version": self.version,
            "class": index,
            "class_name": imagenet.classes()[index].name if self._named else self.title(index),
            "seed": check_seed(seed),
            "cfg_scale": params.cfg_scale,
            "temperature": params.temperature,
            "top_k": params.top_k,
            "top_p": params.top_p,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "package": f"aim {__version__}",
        }

    @torch.inference_mode()
    def picture(self, codes: np.ndarray) -> Image.Image:
        """The RGB image of all its codes (num_tokens,). Decoded alone, so that it is the same however it was drawn."""
        return media.to_image(self.tokenizer.decode(self._on_device(codes)[None])[0])

    def preview(self, codes: np.ndarray) -> Image.Image | None:
        """The first codes (n,) as an RGBA image, transparent where nothing is drawn; None for none."""
        if len(codes) == 0:
            return None
        grid, factor, size = self.tokenizer.config.grid, self.tokenizer.config.downsample, self.tokenizer.config.image_size
        drawn = media.to_image(self._previewer(self._on_device(codes)))
        image = Image.new("RGBA", (size, size))
        image.paste(drawn, (0, 0))
        rows, rest = divmod(len(codes), grid)
        if rest:
            image.paste((0, 0, 0, 0), (rest * factor, rows * factor, size, (rows + 1) * factor))
        return image

    def stream(
        self,
        label: int | str,
        seed: int = 0,
        preview_every: int = 16,
        cfg_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Stream:
        """Draw one image and show it grow: a frame every ``preview_every`` codes (0 for none), the last one with the image.

        Parameters left out are the model's own. InvalidInput for a class or value that will not do.
        """
        row = self.row(self.resolve(label))
        return Stream(self, Request(row, self.params(cfg_scale, temperature, top_k, top_p), seed, preview_every))

    def generate(
        self,
        labels: Sequence[int | str] | int | str,
        seed: int = 0,
        cfg_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image]:
        """RGB images of ``labels``, drawn together; image i with ``seed + i``, so that it is the same when made alone with that.

        ``progress`` is called with the codes drawn and their total. Errors as in ``stream``.
        """
        return [self.picture(codes) for codes in self.draw(labels, seed, self.params(cfg_scale, temperature, top_k, top_p), progress)]

    def draw(
        self,
        labels: Sequence[int | str] | int | str,
        seed: int = 0,
        params: SamplingParams | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """The codes (num_tokens,) of one image after another, as ``generate`` draws them. Closing the iterator cancels the rest."""
        if isinstance(labels, (int, str)):
            labels = [labels]
        seed = check_seed(seed)
        if seed + len(labels) - 1 > MAX_SEED:
            raise InvalidInput(f"seed is {seed}, and {len(labels)} images take as many seeds; the last one must be at most {MAX_SEED}")
        rows = [self.row(self.resolve(label)) for label in labels]
        every = 16 if progress else 0
        return self._draw([Request(row, params or self.sampling, seed + i, every) for i, row in enumerate(rows)], progress)

    def _draw(self, requests: Sequence[Request], progress: Callable[[int, int], None] | None) -> Iterator[np.ndarray]:
        each = self.model.config.num_tokens
        todo, pending = deque(requests), deque[Subscription]()
        server = self.server
        try:
            while todo or pending:
                while todo and len(pending) < server.engine.max_requests:
                    try:
                        pending.append(server.stream(todo[0]))
                    except QueueFull:  # others wait, too: go on with what we have
                        if not pending:
                            raise
                        break
                    todo.popleft()
                for event in pending[0]:
                    if progress:
                        done = (len(requests) - len(todo) - len(pending)) * each + sum(s.step for s in pending)
                        progress(done, len(requests) * each)
                    if isinstance(event, Finished):
                        break
                else:
                    _fail(event)
                pending.popleft()
                yield event.codes
        finally:
            for subscription in pending:
                subscription.close()

    def _on_device(self, codes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(codes).to(self.device)


def load(source: str | Path = "aim-s", device: str = "auto", dtype: str = "auto") -> Pipeline:
    """A pipeline for a model: a name ("aim-s" is bundled, "aim-b" ... are on the hub), a folder, a file or a hub id.

    ``device`` is auto (CUDA, else Apple MPS, else CPU), cpu, cuda, cuda:1 or mps; ``dtype`` auto, float32 or bfloat16, auto
    being bfloat16 where the device computes in it natively. PyTorch's CPU threads are set to AIM_THREADS, on a CPU without it to
    one less than there are cores. InvalidInput, CheckpointError or HubError say what is wrong.
    """
    return Pipeline(*load_model(source, *prepare(device, dtype, Settings.from_env().threads)))


def _fail(event: Event) -> NoReturn:
    """Raise what went wrong with a request that ended without its codes, as an AimError."""
    if not isinstance(event, Failed):
        raise GenerationError("the drawing was cancelled: the engine was closed")
    if isinstance(event.error, AimError):
        raise event.error
    raise GenerationError(f"the model failed: {event.error}") from event.error
