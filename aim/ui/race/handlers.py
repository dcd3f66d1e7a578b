"""What the Race tab does when somebody asks: every handler, apart from how the tab is laid out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image

from aim.bench.race import Race, race
from aim.bench.racers import Pictures
from aim.bench.runs import Stopped
from aim.bench.scaling import Scaling, scaling
from aim.checks import quoted
from aim.config import MAX_SEED
from aim.errors import InvalidInput
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.models import Models
from aim.ui.race.measuring import Measurement
from aim.ui.race.measuring_handlers import MeasuringActions, MeasuringScreen
from aim.ui.race.pairs import Pair, find, offered
from aim.ui.race.report import SHOWN, replay_of, report
from aim.ui.race.scaling_report import scaling_report
from aim.ui.stage.drawing import Drawing
from aim.ui.stage.reel import encoded, served
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import Update, keep, preview_png, verdict

BATCHES = (1, 4, 16, 64)
SCALING_SECONDS = 90.0  # about; what does not fit in there is said to be missing


class _Outcome(NamedTuple):
    race: Race
    pictures: tuple[Pictures, ...]
    palettes: tuple[np.ndarray, ...]  # of each racer's codes


class RaceActions(MeasuringActions):
    """The race's handlers; ``drawings`` are those of the page's Generate tab."""

    def __init__(
        self,
        models: Models,
        drawings: Sessions[Drawing],
        screen: MeasuringScreen,
        replay: Component,
    ) -> None:
        super().__init__(models, screen)
        self.drawings, self.replay = drawings, replay

    def check(self, pair: Any, batch: Any, label: Any) -> list[dict[str, Any]]:
        """A verdict on each input of ``race``, before anything is loaded."""
        return [
            verdict(lambda: find(pair, self.models)),
            verdict(lambda: check_batch(batch)),
            verdict(lambda: self._check_class(pair, label)),
        ]

    def race(self, pair: str, batch: int, label: Any, request: gr.Request) -> Iterator[Update]:
        """Let two models race on this machine, streamed: ``batch`` pictures of class ``label``,
        five laps each, after warming up.

        Returns the race as JSON with the times of every lap, the progress, and the race as a CSV
        and a JSON file.
        """
        yield from self.stream(
            request, lambda run: self._race(run, find(pair, self.models), check_batch(batch), label)
        )

    def _race(self, run: Measurement, pair: Pair, batch: int, label: Any) -> Iterator[Update]:
        yield {**self.update("starting", "Starting …"), self.replay: None, self.screen.report: ""}
        futures = [] if pair.random else [self.models.fetch(name) for name in pair.names]
        run.say(f"Loading {' and '.join(map(self.models.title, pair.names))}")
        with ExitStack() as waiting:
            for name in pair.names:
                waiting.enter_context(self.models.wanted(name))
            while not all(future.done() for future in futures):
                if run.stopped:
                    raise Stopped
                yield self.update("loading", f"{run.text} …")
                wait(futures, timeout=0.5)
        pipes = [future.result() for future in futures]
        begun, busy = self.drawings.begun, self.drawings.busy
        for _ in run.run(lambda run: self._measure(run, pair, pipes, batch, label)):
            yield self.update("drawing", f"{run.text} …", run)
        disturbed = busy or self.drawings.begun > begun
        yield {**self.buttons(busy=False), **self._finished(pair, run, disturbed)}

    def _measure(
        self, run: Measurement, pair: Pair, pipes: list[Pipeline], batch: int, label: Any
    ) -> _Outcome:
        for name in pair.names if pair.random else ():
            if run.stopped:
                raise Stopped
            run.say(f"Making {name} with random weights")
            pipes = [*pipes, self.models.random(name)]
        seed = random.randrange(MAX_SEED + 1 - batch)
        raced = race(
            pipes,
            label,
            batch,
            seed=seed,
            say=lambda text: run.say(f"Measuring {text}"),
            stop=lambda: run.stopped,
            progress=run.progress,
        )
        return _Outcome(*raced, tuple(pipe.colours() for pipe in pipes))

    def _finished(self, pair: Pair, run: Measurement, disturbed: bool) -> Update:
        result, pictures, palettes = run.result
        stem = write.file_stem(f"race {pair.name} batch {result.batch} class {result.label}")
        replay = replay_of(result)
        for racer, drawn, palette in zip(replay["racers"], pictures, palettes, strict=True):
            sheet = write.mosaic([Image.fromarray(pixels) for pixels in drawn.images[:SHOWN]])
            path = keep(preview_png(sheet), f"{racer['name']}.png", self.replay)
            racer["image"] = path and served(path)
            racer["colours"] = [encoded(palette, codes) for codes in drawn.codes[:SHOWN]]
        replay |= {"run": f"{result.seed}", "fresh": True, "badge": "Measured here, median laps"}
        taken = sum(lap.seconds for racer in result.racers for lap in racer.laps)
        return {
            **self.update("done", f"{result.laps} laps each, {taken:.1f} s of racing", run),
            **self.files(result, stem, disturbed=disturbed),
            self.replay: replay,
            self.screen.report: report(result, pair.random, disturbed),
        }

    def _check_class(self, name: Any, label: Any) -> None:
        """InvalidInput if a pair that is loaded does not know the class; otherwise the race itself
        will say.
        """
        pair = next(
            (pair for pair in offered(self.models) if pair.name == name and not pair.random), None
        )
        pipe = self.models.peek(pair.aim) if pair else None
        if pipe is not None:
            pipe.resolve(label)


class ScalingActions(MeasuringActions):
    """The handlers of the measurement of scaling."""

    def check(self, pair: Any) -> list[dict[str, Any]]:
        """A verdict on the input of ``scaling``."""
        return [verdict(lambda: find(pair, self.models))]

    def scaling(self, pair: str, request: gr.Request) -> Iterator[Update]:
        """Measure what an image costs both models of a pair as its codes and the batch grow,
        streamed, in about two minutes.

        Weights are random. Returns the measurements as JSON, the progress, and the measurements as
        a CSV and a JSON file; stopped, what there is.
        """
        yield from self.stream(request, lambda run: self._scaling(run, find(pair, self.models)))

    def _scaling(self, run: Measurement, pair: Pair) -> Iterator[Update]:
        yield {**self.update("starting", "Starting …"), self.screen.report: ""}
        for _ in run.run(lambda run: self._measure(run, pair)):
            yield self.update("drawing", f"{run.text} …", run)
        result: Scaling = run.result
        if not result.costs:
            raise Stopped
        done = f"{len(result.costs)} of {len(result.costs) + len(result.missing)} sizes measured"
        yield {
            **self.buttons(busy=False),
            **self.update("done", done, run),
            **self.files(result, write.file_stem(f"scaling {pair.aim} {pair.gpt}")),
            self.screen.report: scaling_report(result),
        }

    def _measure(self, run: Measurement, pair: Pair) -> Scaling:
        return scaling(
            pair.names,
            batches=BATCHES,
            device=self.models.device,
            dtype=self.models.dtype,
            backend=self.models.backend,
            seconds=SCALING_SECONDS,
            say=lambda text: run.say(f"Measuring {text}"),
            stop=lambda: run.stopped,
            progress=run.progress,
        )


def check_batch(batch: Any) -> int:
    """``batch`` if the page offers it, else InvalidInput."""
    if batch not in BATCHES or isinstance(batch, bool):
        raise InvalidInput(
            f"batch is {quoted(batch)}; choose one of {', '.join(map(str, BATCHES))}"
        )
    return int(batch)
