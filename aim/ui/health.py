"""What a supervisor asks the server: is it up, is it ready, what has it done. Answered while models
draw, without waiting for them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aim._version import __version__
from aim.errors import AimError
from aim.pipeline import Frame, Pipeline
from aim.ui.models import Models, first_class

_WARM_SECONDS = 5.0  # of model time, before anybody asks
_log = logging.getLogger(__name__)

COUNTERS = {
    "requests": "Drawings asked for.",
    "finished": "Drawings that were finished.",
    "failed": "Drawings that failed.",
    "cancelled": "Drawings that were stopped.",
    "codes": "Codes of finished drawings.",
    "seconds": "Seconds of model time of finished drawings.",
    "restarted": "Drawings begun again, as the replica that drew them ended.",
}
GAUGES = {"running": "Drawings in the batch.", "waiting": "Drawings in line."}


class Health:
    """The state of one page; ``warm`` is set when the first model has drawn a little, which the
    thread ``warming`` does; ``rate`` is how many codes a second it drew, 0 before that is known.
    """

    warming: threading.Thread | None = None

    def __init__(self, models: Models) -> None:
        self.models, self.warm, self.rate = models, threading.Event(), 0.0
        self._started = time.monotonic()

    def warm_up(self) -> None:
        """Draw a picture in the background, or as much as there is time for, so that the first one
        that somebody asks for is as fast as the next; and see how fast that is.
        """
        self.warming = threading.Thread(target=self._warm_up, name="warm-up", daemon=True)
        self.warming.start()

    def _warm_up(self) -> None:
        pipe = self.models.get(self.models.default)
        first: Frame | None = None  # its codes bear what is done once
        try:
            for frame in pipe.stream(first_class(pipe), preview_every=32):
                if first is not None:
                    self.rate = (frame.step - first.step) / (frame.seconds - first.seconds)
                    if frame.seconds > _WARM_SECONDS:
                        break
                elif frame.image is not None:
                    first = frame
                    self.warm.set()
            self.warm.set()
        except AimError as error:  # perhaps somebody closed the model meanwhile
            if not self.models.line.ending:
                _log.warning("the first drawing ended early: %s", error)

    def why_not(self) -> str:
        """Why nobody should be sent here now, empty where all is well. An engine whose thread has
        ended is started anew behind this, and a first drawing that failed is tried again.
        """
        if self.models.line.ending:
            return "the server is about to end"
        if not self.warm.is_set():
            if self.warming is not None and not self.warming.is_alive():
                self.warm_up()
                return "the first drawing failed, as the log says; it is tried again"
            return "the model is loading or warming up"
        for pipe in self.models.loaded:
            if pipe.started and (why := pipe.started.why_not()):
                if not pipe.started.alive:
                    threading.Thread(target=lambda p=pipe: p.server, daemon=True).start()
                return f"{pipe.name}: {why}"
        return ""

    def collect(self) -> Iterator[Metric]:
        """What Prometheus asks for."""
        up = time.monotonic() - self._started
        yield GaugeMetricFamily("aim_up_seconds", "Seconds since the page was built.", up)
        ready = self.warm.is_set()
        yield GaugeMetricFamily("aim_ready", "Whether the page's own model is warm.", ready)
        line = self.models.line
        yield GaugeMetricFamily("aim_work", "Pieces of work that run or wait.", line.busy)
        yield GaugeMetricFamily("aim_pictures", "Pictures they have under way.", line.pictures)
        yield CounterMetricFamily("aim_refused", "Pieces of work not let in.", line.refused)
        pipes = self.models.loaded
        of = ("model", "version", "package", "device")
        told = GaugeMetricFamily("aim_model_info", "A model that is loaded.", labels=of)
        for pipe in pipes:
            told.add_metric((pipe.name, pipe.version, __version__, str(pipe.device)), 1)
        yield told
        kinds: Any = (
            (CounterMetricFamily, COUNTERS, "tally"),
            (GaugeMetricFamily, GAUGES, "engine"),
        )
        for family, texts, part in kinds:
            for name, text in texts.items():
                found = family(f"aim_{name}", text, labels=("model",))
                for pipe in pipes:
                    server = pipe.started
                    count = getattr(getattr(server, part), name) if server else 0
                    found.add_metric((pipe.name,), count)
                yield found
        yield from _of_replicas(pipes)


def _of_replicas(pipes: list[Pipeline]) -> Iterator[Metric]:
    """The same of each replica, as it last said."""
    there = [
        ((pipe.name, report.name), report)
        for pipe in pipes
        for report in (pipe.started.reports if pipe.started else ())
    ]
    of = ("model", "replica")
    for name, text in COUNTERS.items():
        count = CounterMetricFamily(f"aim_replica_{name}", f"Of a replica. {text}", labels=of)
        for labels, report in there:
            count.add_metric(labels, getattr(report.tally, name))
        yield count
    for name, text in GAUGES.items():
        now = GaugeMetricFamily(f"aim_replica_{name}", f"Of a replica. {text}", labels=of)
        for labels, report in there:
            now.add_metric(labels, getattr(report, name))
        yield now


def _of(request: Request) -> Health:
    health: Health = request.app.blocks.health
    return health


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "up"})


async def _readyz(request: Request) -> Response:
    if why := _of(request).why_not():
        return JSONResponse({"status": "not ready", "reason": why}, 503)
    return JSONResponse({"status": "ready"})


async def _metrics(request: Request) -> Response:
    return Response(generate_latest(_of(request)), media_type=CONTENT_TYPE_PLAIN_0_0_4)


ROUTES = [Route("/healthz", _healthz), Route("/readyz", _readyz), Route("/metrics", _metrics)]
"""For the server of a page whose ``health`` is a ``Health``."""
