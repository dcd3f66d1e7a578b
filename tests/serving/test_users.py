"""Those who draw with replicas without knowing of them: the page, an evaluation, a measurement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from aim.bench import replicas as measured
from aim.bench.machine import Machine
from aim.engine import Cancelled, Event, Started
from aim.errors import AimError, InvalidInput
from aim.evaluation.samples import SampleSet
from aim.images import read
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.serving import ray
from aim.serving.replicas import Replicas
from aim.ui.health import Health
from aim.ui.models import Models
from tests.loopback import nobody_listens
from tests.serving.conftest import Rack
from tests.serving.sockets import Sockets
from tests.tiny import random_model
from tests.waiting import until


@pytest.fixture
def two(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> list[ray.Plan]:
    """Two replicas in place of those of any plan, which are kept."""
    plans: list[ray.Plan] = []

    def start(pipe: Pipeline, plan: ray.Plan) -> Replicas:
        plans.append(plan)
        rack.clients.append(
            Replicas(Sockets(rack.folder), pipe.model.config, "1", pipe.max_waiting)
        )
        return rack.clients[-1]

    monkeypatch.setattr(ray, "_start", start)
    for name in "ab":
        rack.host(name)
    return plans


def test_a_page(
    two: list[ray.Plan], tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint)
    monkeypatch.setenv("AIM_PLACES", "3")
    models = Models("./tiny.safetensors", "cpu", "float32", replicas=(2, 2))
    pipe = models.get("tiny")
    (plan,) = two
    assert plan.source == str((tiny_checkpoint / "tiny.safetensors").resolve())
    assert (plan.low, plan.high, plan.places, plan.device) == (2, 2, 3, "cpu")
    assert plan.options == {"dtype": "float32", "backend": "auto", "ahead": "auto"}
    assert models.line.limits.places == 6, "of both"
    pipe.generate([1, 207, 281, 285])
    assert until(lambda: all(one.tally.finished for one in pipe.server.reports))
    health = Health(models)
    health.warm.set()
    told = generate_latest(cast(Any, health)).decode()
    for name in "ab":
        assert f'aim_replica_finished_total{{model="tiny",replica="{name}"}} ' in told
        assert f'aim_replica_running{{model="tiny",replica="{name}"}} 0.0' in told
    assert 'aim_finished_total{model="tiny"} 4.0' in told
    assert "replica" not in str(pipe.parameters(1, 0, pipe.sampling)), "pictures do not tell"
    assert health.why_not() == ""
    pipe.close()


def test_an_evaluation(two: list[ray.Plan], tiny_vq: VQ, tmp_path: Path) -> None:
    here, there = (Pipeline(random_model(), tiny_vq, "tiny", "1") for _ in range(2))
    ray.use_replicas(there, ray.Plan("tiny", 2, 2))
    sets = [SampleSet(pipe, tmp_path / name, 13) for pipe, name in ((here, "a"), (there, "b"))]
    for one in sets:
        one.open()
        assert one.draw() == 13
    assert [(sets[0].path(i)).read_bytes() for i in range(13)] == [
        (sets[1].path(i)).read_bytes() for i in range(13)
    ]
    assert there.server.tally.finished == 13 and here.started is None
    there.close()


def test_pictures_say_where_replicas_drew_them(
    two: list[ray.Plan], tiny_pipeline: Pipeline, tmp_path: Path, rack: Rack
) -> None:
    rack.hosts["a"].replica._where = rack.hosts["b"].replica._where = ("cuda:0", "bfloat16")
    ray.use_replicas(tiny_pipeline, ray.Plan("tiny", 2, 2))
    images = SampleSet(tiny_pipeline, tmp_path, 1)
    assert (images.settings()["device"], images.settings()["dtype"]) == ("cuda", "bfloat16")
    images.draw()
    found = read.read_parameters(images.path(0))
    assert (found["device"], found["dtype"]) == ("cuda", "bfloat16")


def test_a_measurement(
    two: list[ray.Plan], tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_pipeline, "max_waiting", 1)  # fewer than places, as with large batches
    plan = ray.Plan("tiny", 0, 0, places=2)
    found, machine = measured.measure(tiny_pipeline, plan, (1, 2), 0.1)
    assert [(plan.low, plan.high) for plan in two] == [(1, 1), (2, 2)]
    assert [one.replicas for one in found] == [1, 2]
    assert min(one.codes_a_second for one in found) > 0 < found[1].pictures_a_second
    assert isinstance(machine, Machine) and '"places": 2' in measured.as_json(found, machine)
    assert measured.as_table(found, machine).row_count == 2


@pytest.mark.parametrize(
    ("plan", "there", "device", "share"),
    [
        (ray.Plan("a", 4, 4), {"CPU": 2.0}, "cpu", {"num_cpus": 0.5, "num_gpus": 0}),
        (ray.Plan("a", 2, 4), {"CPU": 64.0, "GPU": 2.0}, "cuda", {"num_cpus": 1, "num_gpus": 1}),
        (ray.Plan("a", 4, 4, device="cpu"), {"CPU": 8.0, "GPU": 4.0}, "cpu",
         {"num_cpus": 2.0, "num_gpus": 0}),
    ],
)  # fmt: skip
def test_a_gpu_each_or_a_share_of_the_cpus(
    plan: ray.Plan, there: dict[str, float], device: str, share: dict[str, float]
) -> None:
    assert ray._shares(plan, there) == (device, share)


def test_what_there_is_not_enough_of() -> None:
    with pytest.raises(InvalidInput, match="4 replicas need a GPU each, and there are 2"):
        ray._shares(ray.Plan("a", 4, 8), {"CPU": 2.0, "GPU": 2.0})
    with pytest.raises(InvalidInput, match="device is 'cuda:1', and replicas take what"):
        ray._shares(ray.Plan("a", 1, 1, device="cuda:1"), {"CPU": 2.0, "GPU": 2.0})


def test_between_two_numbers_as_there_is_work() -> None:
    assert ray._number(ray.Plan("a", 3, 3)) == {"num_replicas": 3}
    scaling = ray._number(ray.Plan("a", 2, 8, places=20))["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 8)
    assert scaling["target_ongoing_requests"] == 14.0


def test_addresses_that_will_not_do() -> None:
    with pytest.raises(InvalidInput, match="is for Ray's client, which brings no streams"):
        ray._knock("ray://somewhere:10001")
    with pytest.raises(OSError):
        ray._knock(nobody_listens().removeprefix("http://"))
    ray._knock("auto")


def test_only_a_call_that_has_not_ended_is_cancelled() -> None:
    cancelled: list[bool] = []

    class Response:
        async def __aiter__(self) -> AsyncGenerator[Any, None]:
            yield Started(1)
            yield Cancelled(1)

        def cancel(self) -> None:
            cancelled.append(True)

    fleet: Any = object.__new__(ray.RayFleet)
    asked = SimpleNamespace(remote=lambda call: Response())
    fleet._handle = SimpleNamespace(options=lambda **_: asked)

    async def listen(last: type[Event]) -> None:
        async with aclosing(fleet.draw(None)) as events:
            async for event in events:
                if isinstance(event, last):
                    return

    asyncio.run(listen(Cancelled))
    assert not cancelled, "which costs both sides more than the call"
    asyncio.run(listen(Started))
    assert cancelled


def test_without_ray(tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(AimError, match=r"pip install \"aim-mamba\[serve\]\""):
        ray.use_replicas(tiny_pipeline, ray.Plan("tiny", 2, 2))
