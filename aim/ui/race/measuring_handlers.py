"""What a race and the measurement of scaling have in common for somebody at the page: progress,
Stop, files, and what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gradio as gr
from gradio.components import Component

from aim.bench.race import Race
from aim.bench.runs import Stopped
from aim.bench.scaling import Scaling
from aim.bench.table import as_csv, as_json
from aim.ui.models import Models
from aim.ui.race.measuring import Measurement, running
from aim.ui.stage.drawing import View
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import Update, explain, keep, status


class MeasuringScreen(NamedTuple):
    """The components that a measurement writes to; the API returns the first four, in this
    order.
    """

    measurements: Component
    progress: Component
    csv: Component
    json: Component
    report: Component
    start: Component
    stop: Component


class MeasuringActions:
    """The handlers of one kind of measurement."""

    def __init__(self, models: Models, screen: MeasuringScreen) -> None:
        self.models, self.screen = models, screen
        self.sessions = Sessions(lambda *_: Measurement(), models.line)

    def stop(self, request: gr.Request) -> None:
        """Stop what this session measures, within one step of a model."""
        self.sessions.stop(request.session_hash or "")

    def stream(
        self, request: gr.Request, measure: Callable[[Measurement], Iterator[Update]]
    ) -> Iterator[Update]:
        """What ``measure`` yields for the session that asks, after what else is measured; told
        apart where it is stopped.
        """
        with self.sessions.one(request) as run:
            # the first update comes at once: a run that is cancelled before it would never be
            # closed
            yield {**self.buttons(busy=True), **self.update("starting", "Starting …")}
            try:
                told = ""
                for place in run.turn():
                    text = f"Number {place} in line, behind somebody else's: {running()}"
                    if text != told:
                        told = text
                        yield self.update("waiting", text)
                yield from measure(run)
            except Stopped:
                yield {
                    **self.buttons(busy=False),
                    **self.update("stopped", f"Stopped. Last: {run.text}"),
                }
            except Exception as error:
                yield {**self.buttons(busy=False), **self.update("failed", explain(error))}
                raise
            finally:
                run.leave()

    def update(self, state: str, text: str, run: Measurement | None = None) -> Update:
        """How far it is, and nothing to take home yet. Whole: a program that reads the stream sees
        no gaps.
        """
        view = View(state, run.done, run.total) if run else None
        nothing = dict.fromkeys((self.screen.measurements, self.screen.csv, self.screen.json))
        return {self.screen.progress: status(state, text, view), **nothing}

    def files(self, result: Race | Scaling, stem: str, **more: object) -> Update:
        """The measurements with ``more`` beside them, and as files called ``stem``."""
        screen, values = self.screen, {**json.loads(as_json(result)), **more}
        return {
            screen.measurements: values,
            screen.csv: keep(as_csv(result).encode(), f"{stem}.csv", screen.csv),
            screen.json: keep(json.dumps(values).encode(), f"{stem}.json", screen.json),
        }

    def buttons(self, *, busy: bool) -> Update:
        """Start and Stop."""
        return {
            self.screen.start: gr.update(interactive=not busy),
            self.screen.stop: gr.update(interactive=busy),
        }
