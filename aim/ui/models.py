"""The models that one page offers: each is loaded once, when it is first asked for, and shared by
everybody.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from aim.bench.weights import random_pipeline
from aim.checkpoint.hub import fetched, stop
from aim.checkpoint.load import bundled_folder
from aim.checks import quoted
from aim.config import MODELS
from aim.errors import AimError, InvalidInput, let_go
from aim.pipeline import Pipeline, load
from aim.serving.ray import Plan, use_replicas
from aim.settings import Limits, Settings
from aim.ui.line import Line
from aim.ui.zero import use_zero_gpu

FIRST_CLASS = 1  # goldfish, where the model knows it


def at_hand(name: str) -> bool:
    """Whether the weights of a named model can be had: from the hub, or because they lie where the
    bundled ones do.
    """
    source = MODELS[name].source
    return source == "hub" or (
        source == "bundled" and (bundled_folder() / f"{name}.safetensors").is_file()
    )


class Models:
    """``source`` is loaded at once; every other named model that can be had, when somebody picks
    it.
    """

    def __init__(
        self,
        source: str,
        device: str,
        dtype: str,
        backend: str = "auto",
        zero: bool = False,
        replicas: tuple[int, int] = (0, 0),
        cluster: str = "",
    ) -> None:
        """With ``zero`` on a ZeroGPU Space: models are on the CPU, and draw on a GPU in processes
        of their own. ``line`` admits whoever uses them, within the limits of the environment.
        ``replicas`` of ``source`` draw, with as many places each, or those of ``cluster``; other
        models draw in this process.
        """
        self.device, self.dtype, self.backend, self.zero = (
            "cpu" if zero else device,
            dtype,
            backend,
            zero,
        )
        self._limits = limits = Limits.from_env()
        self._ahead = Settings.from_env().ahead
        pipe = self._loaded(source)
        if cluster or any(replicas):
            how = {"dtype": dtype, "backend": backend, "ahead": self._ahead}
            use_replicas(pipe, Plan(source, *replicas, cluster, limits.places, device, how))
            many = max(replicas[1], len(pipe.server.reports))
            limits = dataclasses.replace(limits, places=many * limits.places)
        self.line = Line(limits)
        own: Future[Pipeline] = Future()
        own.set_result(pipe)
        self.default = pipe.name
        self._loads = {pipe.name: own}
        self._lock = threading.Lock()
        self._wanted = Counter[str]()  # who waits for a model to load
        named = filter(at_hand, MODELS)
        self._names = list(dict.fromkeys([pipe.name, *named]))

    @property
    def names(self) -> tuple[str, ...]:
        """Of every model that the page offers, as found when it was built."""
        return tuple(self._names)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of each model, the page's own first."""
        return [(self.title(name), name) for name in self._names]

    def title(self, name: str) -> str:
        """How a model is called on the page: its name and where it comes from."""
        spec = MODELS.get(name)
        if spec is None:
            return name
        size = (
            f"{spec.download_mb / 1000:.1f} GB"
            if spec.download_mb >= 1000
            else f"{spec.download_mb} MB"
        )
        return f"{name} (bundled)" if spec.source == "bundled" else f"{name} ({size} download)"

    def loading(self, name: str) -> str:
        """What there is to say while a model is fetched and loaded: "Loading aim-b (880 MB
        download): 120 MB are here …".
        """
        spec = MODELS.get(name)
        here = fetched(spec.repo) if spec is not None and spec.repo else 0
        return f"Loading {self.title(name)}{f': {here / 1e6:.0f} MB are here' if here else ''} …"

    def check(self, name: object) -> str:
        """``name`` if the page offers it, else InvalidInput. Only names: no path or hub id is taken
        from a visitor.
        """
        if name not in self._names:
            raise InvalidInput(
                f"there is no model {quoted(name)} here; choose one of {', '.join(self._names)}"
            )
        return str(name)

    def peek(self, name: str) -> Pipeline | None:
        """The model if it is loaded."""
        future = self._loads.get(name)
        return (
            future.result()
            if future is not None and future.done() and future.exception() is None
            else None
        )

    @property
    def loaded(self) -> list[Pipeline]:
        """Every model that is loaded."""
        return [pipe for pipe in map(self.peek, self._names) if pipe is not None]

    def get(self, name: object) -> Pipeline:
        """The model if it is loaded. AimError says how far it is, and lets it begin to load where
        it did not; raises what ``fetch`` and ``load`` raise.

        Nobody waits here: many who did, for a hub that is slow, would leave no thread for others.
        """
        with self._lock:
            future = self._loads.get(self.check(name))
            if future is not None and future.done() and future.exception() is not None:
                del self._loads[str(name)]  # told once, then tried again
        future = future or self.fetch(name)
        if not future.done():
            raise AimError(f"{self.loading(str(name))} Ask again in a moment.")
        return future.result()

    @contextmanager
    def wanted(self, name: str) -> Iterator[None]:
        """Somebody waits for a model to load while inside."""
        self._wanted[name] += 1
        try:
            yield
        finally:
            self._wanted[name] -= 1

    def stop_loading(self, name: str) -> bool:
        """Let a download end that nobody but one waits for; False if others do."""
        spec = MODELS.get(name)
        if spec is None or not spec.repo or self._wanted[name] > 1:
            return False
        stop(spec.repo)
        return True

    def fetch(self, name: object) -> Future[Pipeline]:
        """The model, now or later: two people who want it share one load, and one that failed is
        tried again.

        InvalidInput for a name that the page does not offer.
        """
        checked = self.check(name)
        with self._lock:
            future = self._loads.get(checked)
            if future is None or (future.done() and future.exception() is not None):
                future = self._loads[checked] = Future()
                threading.Thread(
                    target=self._load, args=(checked, future), name=f"load-{checked}", daemon=True
                ).start()
            return future

    def random(self, name: str) -> Pipeline:
        """A named model with random weights, for timing; a new one every time, as nobody else wants
        it.
        """
        return random_pipeline(name, self.device, self.dtype, self.backend)

    def _load(self, name: str, future: Future[Pipeline]) -> None:
        try:
            future.set_result(self._loaded(name))
        except BaseException as error:  # it belongs to whoever waits for the future
            let_go(error)  # it is kept until somebody tries again
            future.set_exception(error)

    def _loaded(self, source: str) -> Pipeline:
        pipe = load(source, self.device, self.dtype, self.backend, ahead=self._ahead)
        pipe.max_requests, pipe.max_waiting = self._limits.places, self._limits.waiting
        if self.zero:
            use_zero_gpu(pipe)
        return pipe


def class_choices(pipe: Pipeline) -> list[tuple[str, int]]:
    """(title, ImageNet index) of every class that the model knows, by name."""
    return sorted(
        ((pipe.title(index), index) for index in pipe.classes),
        key=lambda choice: choice[0].casefold(),
    )


def first_class(pipe: Pipeline, wanted: Any = FIRST_CLASS) -> int:
    """``wanted`` if the model knows it, else its first class."""
    return wanted if wanted in pipe.classes else pipe.classes[0]
