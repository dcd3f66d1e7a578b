"""The benchmark on a GPU: numbers that only exist there, and pictures decoded beside other work."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from aim.bench.runs import decode_images, draw, overlapped, step_seconds
from aim.bench.speed import Speed, bench, requests_for
from aim.bench.weights import random_pipeline
from aim.engine.backend import pick
from aim.models.image_decoder import ImageDecoder

pytestmark = pytest.mark.gpu


def test_every_number_is_there() -> None:
    pipe = random_pipeline("aim-s", "cuda", "bfloat16")
    (result,) = bench(pipe, [2], repeats=2).batches
    assert isinstance(result, Speed)
    assert all(value is not None and value > 0 for value in dataclasses.astuple(result))
    assert result.step_ms < 2 * result.step_ms_mean
    pipe.close()


@pytest.mark.parametrize("batch", [1, 17])
def test_pictures_decoded_beside_the_next_batch_are_the_same(batch: int) -> None:
    pipe = random_pipeline("aim-s", "cuda", "bfloat16")
    backend = pick(pipe.model)
    model, engine, decoder = (
        backend.model,
        backend.engine(max_requests=batch),
        ImageDecoder(pipe.tokenizer),
    )
    alone = decode_images(decoder, draw(engine, requests_for(model, batch)))
    seconds, beside = overlapped(engine, [requests_for(model, batch) for _ in range(3)], decoder)
    assert seconds > 0
    np.testing.assert_array_equal(np.concatenate(beside), [*alone, *alone])
    pipe.close()


def test_the_steps_of_a_batch_take_as_long_as_the_batch() -> None:
    pipe = random_pipeline("aim-s", "cuda", "bfloat16")
    backend = pick(pipe.model)
    model, engine = backend.model, backend.engine(max_requests=1)
    draw(engine, requests_for(model, 1))
    started = time.perf_counter()
    times = step_seconds(engine, requests_for(model, 1), pipe.device)
    seconds = time.perf_counter() - started
    assert 16 <= len(times) <= model.config.num_tokens
    assert min(times) > 0
    assert seconds / 2 < sum(times) < seconds
    pipe.close()
