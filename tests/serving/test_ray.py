"""Replicas on Ray Serve itself, where it is installed: they draw, one is killed, another page finds
them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from aim.checkpoint import save_model, save_tokenizer
from aim.config import SamplingParams, VQConfig
from aim.engine import Engine, Finished, Progress, Request
from aim.errors import AimError
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline, load
from aim.serving.ray import Plan, use_replicas
from tests.loopback import nobody_listens
from tests.tiny import random_model
from tests.waiting import until

if find_spec("ray") is None:
    pytest.skip('Ray Serve is not there: pip install -e ".[serve]"', allow_module_level=True)
pytestmark = [
    pytest.mark.timeout(400),  # a cluster takes its time to begin
    pytest.mark.filterwarnings("error:The given NumPy array is not writable"),
]
OPTIONS = {"dtype": "float32", "backend": "cpu"}
CODES = 256


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a name that no other process here has."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    sizes: Any = {"codebook_size": 64, "z_channels": 32, "ch": 32, "num_res_blocks": 1}
    vq = VQ(VQConfig(image_size=64, ch_mult=(1, 1, 2), **sizes)).eval()
    save_tokenizer(folder / "vq.safetensors", vq, {}, torch.float32)
    path = folder / f"tiny-{os.getpid()}.safetensors"
    save_model(path, random_model(num_tokens=CODES), {"tokenizer": "vq.safetensors"}, torch.float32)
    return path


@pytest.fixture
def pipe(checkpoint: Path) -> Iterator[Pipeline]:
    pipe = load(checkpoint, "cpu", **OPTIONS)
    yield pipe
    pipe.close()


def processes(pipe: Pipeline) -> list[int]:
    """Those of the replicas of a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"ray::ServeReplica:aim-{pipe.name}:".encode()):
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def test_nothing_is_lost_or_wrong_when_a_replica_is_killed(
    pipe: Pipeline, checkpoint: Path
) -> None:
    use_replicas(pipe, Plan(str(checkpoint), 2, 2, places=4, device="cpu", options=OPTIONS))
    params = [SamplingParams(cfg_scale=1 + seed % 3) for seed in range(40)]
    asked = [Request(seed % 5, params[seed], seed, preview_every=8) for seed in range(40)]
    with_one = Engine(pipe.model, 8, 64)
    alone = {e.request_id: e.codes for e in with_one.run(asked) if isinstance(e, Finished)}
    wrong: list[object] = []
    finished: list[int] = []

    def draw(requests: list[Request]) -> None:
        steps = dict.fromkeys((request.id for request in requests), 0)
        for event in pipe.server.stream(*requests):
            if isinstance(event, (Progress, Finished)):
                step = len(event.codes)
                same = event.codes.tolist() == alone[event.request_id][:step].tolist()
                if not same or step <= steps[event.request_id]:
                    wrong.append(event)
                steps[event.request_id] = step
            if isinstance(event, Finished):
                finished.append(event.request_id)

    clients = [threading.Thread(target=draw, args=(asked[i::4],)) for i in range(4)]
    for one in clients:
        one.start()
    server: Any = pipe.server
    assert until(lambda: server.tally.finished >= 4, 120)
    (first, _) = processes(pipe)
    os.kill(first, signal.SIGKILL)
    for one in clients:
        one.join(200)
    assert wrong == []
    assert sorted(finished) == sorted(request.id for request in asked)
    assert server.tally.failed == 0 and server.tally.restarted > 0
    assert until(lambda: len(server.reports) == 2, 60), "Ray begins another"
    stream = pipe.stream(1, preview_every=8, explain=True)
    for frame in stream:
        if frame.step:
            break
    stream.close()
    assert until(lambda: not any(one.running for one in server.reports), 10), "it was cancelled"
    (hung, _) = processes(pipe)
    os.kill(hung, signal.SIGSTOP)
    assert until(lambda: len(server.reports) == 1, 20), "who answers is heard beside who does not"
    os.kill(hung, signal.SIGCONT)
    assert until(lambda: len(server.reports) == 2, 20) and not server.why_not()
    pipe.close()
    assert until(lambda: not processes(pipe), 20), "they end with the cluster of their own"


def test_the_page_of_a_cluster_that_runs(
    pipe: Pipeline, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AimError, match=r"the cluster at 127.0.0.1:1 cannot be reached"):
        use_replicas(pipe, Plan(str(checkpoint), 0, 0, "127.0.0.1:1", options=OPTIONS))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    address = nobody_listens().removeprefix("http://")
    program = str(Path(sys.executable).parent / "ray")
    begin = ["start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
    place = [f"--port={address.rpartition(':')[2]}"]
    log = (tmp_path / "log").open("wb")
    cluster = subprocess.Popen([program, *begin, *place], stdout=log, stderr=log)
    try:
        assert until(lambda: b"Ray runtime started" in (tmp_path / "log").read_bytes(), 120)
        with pytest.raises(AimError, match=r"no replicas of aim-tiny-.* say how many are to"):
            use_replicas(pipe, Plan(str(checkpoint), 0, 0, address, options=OPTIONS))
        two = Plan(str(checkpoint), 1, 2, address, places=4, options=OPTIONS)
        use_replicas(pipe, two)
        names = {report.name for report in pipe.server.reports}
        here = pipe.generate([1, 207], seed=3)
        pipe.close()
        assert processes(pipe), "they stay"
        use_replicas(pipe, Plan(str(checkpoint), 0, 0, address, options=OPTIONS))
        assert {report.name for report in pipe.server.reports} & names
        assert [one.tobytes() for one in pipe.generate([1, 207], seed=3)] == [
            one.tobytes() for one in here
        ]
    finally:
        pipe.close()
        cluster.terminate()
        cluster.wait(60)
