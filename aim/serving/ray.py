"""Replicas on Ray Serve: one GPU or a share of the CPUs each, on this machine or on all of a
cluster. Ray places them, starts them again, and has as many as there is work for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from aim.config import MODELS
from aim.engine import Event, Finished, Progress, Report, Server, Tally
from aim.engine.requests import LAST
from aim.errors import AimError, InvalidInput
from aim.pipeline import Pipeline, load
from aim.serving.fleet import Beat, Call
from aim.serving.replica import Replica
from aim.serving.replicas import Replicas
from aim.settings import Settings

HEALTH_SECONDS = 5.0  # between two looks at a replica's health
HUNG_SECONDS = 10.0  # without an answer, three times in a row, after which it is replaced
ANSWER_SECONDS = 2.0  # in which a replica answers a beat
LEAVE_SECONDS = 30.0  # in which a replica that is not needed any more finishes what it draws
UP_SECONDS, DOWN_SECONDS = 5.0, 120.0  # that there was too much to do, or too little
BUSY = 0.7  # share of the places that are taken where there are just enough replicas
CONNECT_SECONDS = 10.0
STORE_BYTES = 100_000_000  # of Ray's object store, which codes hardly fill
_CONSTRUCTOR_TRIES = 3


@dataclass(frozen=True)
class Plan:
    """``low`` to ``high`` replicas of what ``load(source, device, **options)`` gives, with
    ``places`` each, on the cluster at ``address``, empty for one of their own on this machine.

    ``low`` 0: those that the cluster has already.
    """

    source: str
    low: int
    high: int
    address: str = ""
    places: int = 16
    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    load: Callable[..., Pipeline] = load


def use_replicas(pipe: Pipeline, plan: Plan) -> None:
    """Let replicas of ``pipe`` draw for it, which are there when this returns. AimError where they
    cannot be had.
    """
    # a file may be named from the folder that this process is in
    path = Path(plan.source).expanduser()
    if plan.source not in MODELS and path.exists():
        plan = replace(plan, source=str(path.resolve()))
    pipe.use_server(lambda pipe: _start(pipe, plan))
    report = pipe.server.reports[0]
    pipe.where = report.device, report.dtype


def _start(pipe: Pipeline, plan: Plan) -> Replicas:
    fleet = RayFleet(plan, f"aim-{re.sub(r'[^A-Za-z0-9.-]+', '-', pipe.name)}")
    return Replicas(fleet, pipe.model.config, pipe.version, pipe.max_waiting)


class RayFleet:
    """The replicas of one application of Ray Serve, which this begins where the plan says so.

    A cluster of their own ends with them; on one that runs already they stay.
    """

    def __init__(self, plan: Plan, application: str) -> None:
        self._ray, self._serve = _packages()
        self._own = not plan.address
        self._handle: Any = None
        _connect(self._ray, plan.address)
        try:
            self._handle = self._deployed(plan, application)
        except BaseException:
            self.close()
            raise

    async def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        """As ``Fleet.draw``."""
        response = self._handle.options(method_name="draw", stream=True).remote(call)
        ended = False
        try:
            async for event in response:
                ended = isinstance(event, LAST)  # nobody may ask for what comes after it
                yield _writable(event)
        finally:
            if not ended:
                response.cancel()

    async def beat(self, beat: Beat) -> list[Report]:
        """As ``Fleet.beat``."""
        response = self._handle.broadcast("beat", beat)
        # in a thread: the way without one gives nothing where a single replica hangs
        answers = await asyncio.to_thread(
            response.results, timeout_s=ANSWER_SECONDS, return_exceptions=True
        )
        return [answer for answer in answers if isinstance(answer, Report)]

    def close(self) -> None:
        """As ``Fleet.close``."""
        if not self._ray.is_initialized():  # Python is about to end
            return
        with suppress(Exception):  # what is left ends with Ray
            if self._handle is not None:
                self._handle.shutdown()
            if self._own:
                self._serve.shutdown()
        self._ray.shutdown()

    def _deployed(self, plan: Plan, application: str) -> Any:
        self._serve.start(proxy_location="Disabled")  # nothing listens for HTTP but the page
        if not plan.low:
            try:
                return self._serve.get_app_handle(application)
            except Exception as error:
                raise AimError(
                    f"no replicas of {application} run on the cluster at {plan.address}; say how "
                    "many are to: --replicas 4"
                ) from error
        device, share = _shares(plan, self._ray.cluster_resources())
        deployment = self._serve.deployment(
            RayReplica,
            name="Replica",
            max_ongoing_requests=plan.places,
            health_check_period_s=HEALTH_SECONDS,
            health_check_timeout_s=HUNG_SECONDS,
            graceful_shutdown_timeout_s=LEAVE_SECONDS,
            max_constructor_retry_count=_CONSTRUCTOR_TRIES,
            ray_actor_options=share,
            **_number(plan),
        )
        target = deployment.bind(plan, device, int(share["num_cpus"]))
        try:
            return self._serve.run(target, name=application, route_prefix=None)
        except Exception as error:
            raise AimError(f"the replicas did not start: {_line(error)}") from error


class RayReplica:
    """What Ray Serve runs: a pipeline of its own in a process of its own, warm."""

    def __init__(self, plan: Plan, device: str, threads: int) -> None:
        pipe = plan.load(plan.source, device, **plan.options, max_requests=plan.places)
        if pipe.device.type == "cpu" and Settings.from_env().threads is None:
            pipe.threads = max(1, threads)
            torch.set_num_threads(pipe.threads)
        list(pipe.draw(pipe.classes[0]))
        server = cast(Server, pipe.server)
        server.tally = Tally()
        name = _packages()[1].get_replica_context().replica_id.unique_id
        dtype = str(pipe.dtype).removeprefix("torch.")
        self._pipe = pipe
        self._replica = Replica(name, server, pipe.version, str(pipe.device), dtype)

    async def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        """As ``Replica.draw``."""
        async with aclosing(self._replica.draw(call)) as events:
            async for event in events:
                yield event

    async def beat(self, beat: Beat) -> Report:
        """As ``Replica.beat``."""
        return self._replica.beat(beat)

    def check_health(self) -> None:
        """As ``Replica.check``: Ray replaces who raises."""
        self._replica.check()


def _writable(event: Event) -> Event:
    """With arrays of its own: those that Ray brings can only be read."""
    if not isinstance(event, (Progress, Finished)):
        return event
    own: dict[str, Any] = {
        name: one.copy() for name, one in vars(event).items() if isinstance(one, np.ndarray)
    }
    return replace(event, **own)


def _packages() -> tuple[Any, Any]:
    """Ray and its Serve. AimError where they are not installed."""
    # nobody is told that Ray is used, and a busy replica may take a while to say how busy it is
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "1")
    # a cluster asks for the token that Ray keeps here, and Ray sends it where this was set before
    if "ray" not in sys.modules and (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise AimError(
            'replicas need Ray Serve, which is not installed: pip install "aim-mamba[serve]", or '
            'pip install -e ".[serve]" in a checkout'
        ) from error
    return ray, serve


def _connect(ray: Any, address: str) -> None:
    if ray.is_initialized():
        raise AimError("replicas run for this process already; one model can be on them")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
            return
        # replicas run what runs here, wherever Python found it
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}},
            **quiet,
        )
    except InvalidInput:
        raise
    except Exception as error:
        where = f"the cluster at {address}" if address else "Ray on this machine"
        raise AimError(f"{where} cannot be reached: {_line(error)}") from error


def _knock(address: str) -> None:
    """InvalidInput for an address that streams do not come from, OSError where nobody listens at
    host:port, for which Ray would wait for minutes.
    """
    if address.startswith("ray://"):
        raise InvalidInput(
            f"{address} is for Ray's client, which brings no streams; run `ray start --address "
            "host:6379` on this machine, and give that host:6379, or auto"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _shares(plan: Plan, there: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    """Where a replica computes, and what it takes of what is ``there``: a GPU, or a share of the
    CPUs. InvalidInput where there is not enough.
    """
    cpus, gpus = there.get("CPU", 0.0), int(there.get("GPU", 0))
    if plan.device not in ("auto", "cpu", "cuda"):
        raise InvalidInput(
            f"device is {plan.device!r}, and replicas take what Ray gives them; say auto, cpu or "
            "cuda"
        )
    if plan.device == "cpu" or (plan.device == "auto" and not gpus):
        return "cpu", {"num_cpus": cpus / plan.high, "num_gpus": 0}
    if gpus < plan.low:
        raise InvalidInput(
            f"{plan.low} replicas need a GPU each, and there are {gpus}; ask for fewer with "
            "--replicas, or for a share of the CPUs with --device cpu"
        )
    return "cuda", {"num_cpus": min(1.0, cpus / plan.high), "num_gpus": 1}


def _number(plan: Plan) -> dict[str, Any]:
    """How many replicas, as Ray Serve is told."""
    if plan.low == plan.high:
        return {"num_replicas": plan.low}
    return {
        "autoscaling_config": {
            "min_replicas": plan.low,
            "max_replicas": plan.high,
            "initial_replicas": plan.low,
            "target_ongoing_requests": max(1.0, BUSY * plan.places),
            "upscale_delay_s": UP_SECONDS,
            "downscale_delay_s": DOWN_SECONDS,
        }
    }


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
