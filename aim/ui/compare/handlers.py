"""What the Compare tab does: a grid over two settings, the way between two classes, each as one
labelled picture.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component
from PIL import Image

from aim.compare import Axis, blend, parameters, sweep
from aim.errors import AimError
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.models import Models
from aim.ui.stage.drawing import View
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import Update, explain, keep, status


class CompareScreen(NamedTuple):
    """The components that comparing writes to; the API returns the first three."""

    picture: Component
    progress: Component
    png: Component
    starts: tuple[Component, Component]
    stop: Component


class Comparison:
    """Pictures that are drawn together for somebody; ``stop`` may be called from any thread."""

    def __init__(self) -> None:
        self._left = threading.Event()

    def stop(self) -> None:
        """Leave the engine within a few steps."""
        self._left.set()

    def follow(self, work: Callable[..., Image.Image]) -> Iterator[tuple[int, int] | Image.Image]:
        """What ``work(progress=...)`` reports as it comes, and last its picture; nothing more after
        ``stop``. Raises what it raises.
        """
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def report(done: int, total: int) -> None:
            if self._left.is_set():
                raise _Left
            events.put((done, total))

        def run() -> None:
            try:
                events.put(work(progress=report))
            except BaseException as error:  # the one who waits gets it
                events.put(error)

        threading.Thread(target=run, name="compare", daemon=True).start()
        try:
            while True:
                event = events.get()
                if isinstance(event, _Left):
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Image.Image):
                    return
        finally:
            self.stop()


class _Left(Exception):
    """Nobody waits for the pictures any more."""


class CompareActions:
    """The handlers of the tab."""

    def __init__(self, models: Models, screen: CompareScreen) -> None:
        self.models, self.screen = models, screen
        self.sessions = Sessions(Comparison)

    def sweep(
        self,
        label: Any,
        across: str,
        across_values: str,
        down: str,
        down_values: str,
        seed: Any,
        cfg_scale: float | None,
        temperature: float | None,
        request: gr.Request,
    ) -> Iterator[Update]:
        """Draw every combination of two settings with one seed; values have commas between them.
        Returns one labelled picture.

        Settings are cfg_scale, temperature, top_p, top_k, seed and class; the rest is the same in
        all.
        """

        def work(pipe: Pipeline, progress: Any) -> tuple[Image.Image, dict[str, Any]]:
            first, second = Axis.parse(across, across_values), Axis.parse(down, down_values)
            params = pipe.params(cfg_scale=cfg_scale, temperature=temperature)
            image = sweep(pipe, first, second, label, seed, params, progress)
            about = {axis.name: list(axis.values) for axis in (first, second)}
            return image, {"class": pipe.resolve(label), "seed": seed, **params.__dict__, **about}

        yield from self._draw("sweep", work, request)

    def blend(
        self,
        first: Any,
        second: Any,
        steps: Any,
        seed: Any,
        cfg_scale: float | None,
        temperature: float | None,
        request: gr.Request,
    ) -> Iterator[Update]:
        """Draw the way from one class to another with one seed, both ends included. Returns one
        labelled picture.
        """

        def work(pipe: Pipeline, progress: Any) -> tuple[Image.Image, dict[str, Any]]:
            params = pipe.params(cfg_scale=cfg_scale, temperature=temperature)
            image = blend(
                pipe,
                first,
                second,
                int(steps) if isinstance(steps, float) else steps,
                seed,
                params,
                progress,
            )
            ends = [pipe.resolve(label) for label in (first, second)]
            return image, {"classes": ends, "steps": int(steps), "seed": seed, **params.__dict__}

        yield from self._draw("blend", work, request)

    def stop(self, request: gr.Request) -> None:
        """Stop what this session compares."""
        self.sessions.stop(request.session_hash or "")

    def _draw(
        self,
        kind: str,
        work: Callable[..., tuple[Image.Image, dict[str, Any]]],
        request: gr.Request,
    ) -> Iterator[Update]:
        screen = self.screen
        with self.sessions.one(request.session_hash or "") as comparison:
            yield {**self._busy(True), **self._seen(status("starting", "Starting …"))}
            about: dict[str, Any] = {}
            total = 0

            def run(progress: Any) -> Image.Image:
                image, settings = work(pipe, progress)
                about.update(settings)
                return image

            try:
                pipe = self.models.get(self.models.default)
                for event in comparison.follow(run):
                    if isinstance(event, Image.Image):
                        made = parameters(pipe, kind, **about)
                        path = keep(
                            write.png_bytes(event, made),
                            f"{write.file_stem(f'{pipe.name} {kind}')}.png",
                            screen.png,
                        )
                        yield {
                            **self._busy(False),
                            **self._seen(
                                status("done", f"{total} codes", View("done", total, total)), path
                            ),
                        }
                        return
                    done, total = event
                    yield self._seen(
                        status("drawing", f"{done} / {total} codes", View("drawing", done, total))
                    )
                yield {**self._busy(False), **self._seen(status("stopped", "Stopped"))}
            except Exception as error:
                yield {**self._busy(False), **self._seen(status("failed", explain(error)))}
                if isinstance(error, AimError):
                    raise gr.Error(str(error), print_exception=False) from error
                raise

    def _seen(self, shown: dict[str, Any], path: str | None = None) -> Update:
        return {self.screen.picture: path, self.screen.progress: shown, self.screen.png: path}

    def _busy(self, busy: bool) -> Update:
        starts = {start: gr.update(interactive=not busy) for start in self.screen.starts}
        return {**starts, self.screen.stop: gr.update(interactive=busy)}
