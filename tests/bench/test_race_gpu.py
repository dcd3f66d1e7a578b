"""A race and scaling on a GPU: clocks of the device and of the host agree, memory is told apart,
folds are not broken by sampling.
"""

from __future__ import annotations

import pytest

from aim.bench.race import race
from aim.bench.runs import timed
from aim.bench.scaling import scaling
from aim.bench.speed import requests_for
from aim.bench.weights import random_pipeline

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("batch", [1, 16])
def test_codes_come_by_the_device_s_clock_and_before_the_host_has_them_all(batch: int) -> None:
    pipes = [random_pipeline(name, "cuda", "bfloat16") for name in ("aim-s", "gpt-s")]
    found, pictures = race(pipes, batch=batch, bandwidth=1e12)
    for racer, drawn in zip(found.racers, pictures, strict=True):
        assert drawn.images.shape == (batch, 128, 128, 3)
        for lap in racer.laps:
            assert len(lap.code_seconds) == 256
            assert all(a <= b for a, b in zip(lap.code_seconds, lap.code_seconds[1:], strict=False))
            assert 0.5 * lap.codes_seconds < lap.code_seconds[-1] < lap.codes_seconds + 1e-3
        assert racer.peak_memory_bytes is not None
        assert 2 * racer.parameters < racer.peak_memory_bytes < 20 * racer.memory_bytes


def test_sampled_steps_add_up_to_a_drawing() -> None:
    found = scaling(("aim-s", "gpt-s"), [256, 1024], [1, 16], "cuda", "bfloat16")
    assert found.missing == ()
    for name in found.models:
        pipe = random_pipeline(name, "cuda", "bfloat16")
        engine = pipe.engine(16)
        timed(engine, requests_for(pipe.model, 16), pipe.device)
        drawn = timed(engine, requests_for(pipe.model, 16), pipe.device).seconds
        cost = found.cost(name, 256, 16)
        assert cost is not None
        assert drawn / 3 < cost.seconds < 1.3 * drawn  # the engine does more between two steps
