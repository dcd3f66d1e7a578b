"""The benchmark on a tiny random model: its numbers agree with each other."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from rich.console import Console

from aim.bench import speed
from aim.bench.runs import decode_images, draw, drop, first_code_seconds, overlapped, step_seconds
from aim.bench.speed import NoRoom, Report, Speed, bench, parse_batches, requests_for
from aim.bench.table import as_json, as_table
from aim.bench.weights import random_model, random_pipeline
from aim.engine import Engine, Request
from aim.errors import GenerationError
from aim.models.aim.model import AiM
from aim.models.image_decoder import ImageDecoder
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline

CPU = torch.device("cpu")


@pytest.fixture
def report(tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(speed, "copy_bandwidth", lambda device: 1e9)
    return bench(tiny_pipeline, [1, 3], repeats=2)


class TestReport:
    def test_a_result_for_every_batch_size(self, report: Report, tiny_model: AiM) -> None:
        assert [(s.batch, s.rows, s.repeats) for s in report.batches if isinstance(s, Speed)] == [
            (1, 2, 2),
            (3, 6, 2),
        ]
        assert (report.model, report.version, report.backend, report.dtype) == (
            "tiny",
            "0123456789ab",
            "cpu",
            "float32",
        )
        assert (report.guidance, report.tokens, report.image_size) == (3.0, 16, 16)
        assert report.parameters == sum(weight.numel() for weight in tiny_model.parameters())

    def test_numbers_agree(self, report: Report) -> None:
        for s in report.batches:
            assert isinstance(s, Speed)
            assert 0 < s.seconds_min <= s.seconds <= s.seconds_max
            assert s.images_per_second == pytest.approx(s.batch / s.seconds)
            assert s.step_ms_mean * report.tokens == pytest.approx(1e3 * s.codes_seconds)
            assert s.codes_seconds < s.seconds_max
            assert s.step_ms > 0
            assert s.first_code_ms > 0
            assert 0 < s.decode_ms_per_image * s.batch < 1e3 * s.seconds_max
            assert s.floor_ms == pytest.approx(
                1e3 * (s.weight_bytes + s.state_bytes) / report.copy_bandwidth
            )
            assert s.floor_fraction == pytest.approx(s.floor_ms / s.step_ms_mean)
            assert s.warmup_seconds > 0
            assert (
                s.captures,
                s.capture_seconds,
                s.images_per_second_overlapped,
                s.reserved_memory_bytes,
            ) == (0, 0, None, None)

    def test_json_is_one_line_with_everything(self, report: Report) -> None:
        line = as_json(report)
        assert "\n" not in line
        found = json.loads(line)
        assert found == json.loads(json.dumps(dataclasses.asdict(report)))
        assert found["machine"]["pytorch"] == torch.__version__

    def test_no_number_that_is_none_gets_into_json(self, report: Report) -> None:
        with pytest.raises(ValueError, match="JSON"):
            as_json(dataclasses.replace(report, copy_bandwidth=float("nan")))

    def test_a_batch_that_does_not_fit_has_a_column_that_says_so(self, report: Report) -> None:
        mixed = dataclasses.replace(report, batches=(report.batches[0], NoRoom(999)))
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(as_table(mixed))
        text = console.export_text()
        assert "999" in text
        assert "out of memory" in text
        assert json.loads(as_json(mixed))["batches"][1] == {"batch": 999, "error": "out of memory"}


class TestRuns:
    def test_draw_gives_the_codes_of_the_pipeline(self, tiny_pipeline: Pipeline) -> None:
        requests = requests_for(tiny_pipeline.model, 3)
        codes = draw(Engine(tiny_pipeline.model, max_requests=3), requests)
        expected = list(
            tiny_pipeline.draw([tiny_pipeline.classes[r.label] for r in requests], seed=0)
        )
        np.testing.assert_array_equal(codes, expected)

    def test_requests_are_the_same_every_time(self, tiny_model: AiM) -> None:
        first, second = requests_for(tiny_model, 20), requests_for(tiny_model, 20)
        assert [(r.label, r.seed, r.params) for r in first] == [
            (r.label, r.seed, r.params) for r in second
        ]
        assert len({r.label for r in first}) > 1
        assert [r.seed for r in first] == list(range(20))
        assert first[0].params == tiny_model.config.sampling

    def test_a_time_for_every_step(self, tiny_model: AiM) -> None:
        times = step_seconds(Engine(tiny_model, max_requests=2), requests_for(tiny_model, 2), CPU)
        assert len(times) == tiny_model.config.num_tokens
        assert min(times) > 0

    def test_the_first_code_leaves_the_engine_empty(self, tiny_model: AiM) -> None:
        engine = Engine(tiny_model, max_requests=2)
        requests = requests_for(tiny_model, 2)
        assert first_code_seconds(engine, requests) > 0
        assert engine.idle
        assert len(draw(engine, requests)) == 2

    def test_a_request_that_fails_is_heard_of_and_the_others_end(
        self, make_model: Callable[..., AiM]
    ) -> None:
        model = make_model()
        engine = Engine(model, max_requests=3)
        broken, *others = [request.label for request in requests_for(model, 3)]
        assert set(others) - {broken}
        model.cls_embed.embedding_table.weight[broken] = float("nan")
        for run in (draw, first_code_seconds):
            with pytest.raises(GenerationError, match="not finite"):
                # heard of at its first code, while the others still draw
                run(
                    engine,
                    [
                        Request(r.label, r.params, r.seed, preview_every=1)
                        for r in requests_for(model, 3)
                    ],
                )
            assert engine.idle

    def test_drop_empties_an_engine(self, tiny_model: AiM) -> None:
        engine = Engine(tiny_model, max_requests=1)
        requests = requests_for(tiny_model, 2)
        for request in requests:
            engine.submit(request)
        engine.step()
        drop(engine, requests)
        assert engine.idle

    @pytest.mark.parametrize("chunk", [1, 2])
    def test_pictures_decoded_beside_the_next_batch_are_the_same(
        self, tiny_pipeline: Pipeline, chunk: int
    ) -> None:
        model, decoder = tiny_pipeline.model, ImageDecoder(tiny_pipeline.tokenizer)
        decoder.chunk = chunk
        engine = Engine(model, max_requests=3)
        alone = decode_images(decoder, draw(engine, requests_for(model, 3)))
        seconds, beside = overlapped(engine, [requests_for(model, 3) for _ in range(3)], decoder)
        assert seconds > 0
        np.testing.assert_array_equal(np.concatenate(beside), [*alone, *alone])


class TestRandomWeights:
    def test_are_the_same_every_time_and_leave_the_random_state_alone(self) -> None:
        state = torch.get_rng_state()
        first, second = random_model("aim-s"), random_model("aim-s")
        assert torch.equal(torch.get_rng_state(), state)
        for a, b in ((first.model, second.model), (first.tokenizer, second.tokenizer)):
            assert all(
                torch.equal(x, y)
                for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
            )
        assert not any(weight.requires_grad for weight in first.model.parameters())

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_draw_a_picture(self, dtype: str) -> None:
        pipe = random_pipeline("aim-s", "cpu", dtype)
        codes = draw(Engine(pipe.model, max_requests=1), requests_for(pipe.model, 1))[0]
        assert len(set(codes.tolist())) > 50  # it neither blows up nor gets stuck
        assert pipe.tokenizer.decode(torch.from_numpy(codes)[None]).isfinite().all()
        assert pipe.dtype == getattr(torch, dtype)
        pipe.close()


def test_batches_are_taken_once_in_order() -> None:
    assert parse_batches(" 16,1, 16,4096") == [16, 1, 4096]


def test_more_batches_are_drawn_while_there_is_time(
    tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "copy_bandwidth", lambda device: 1e9)
    (result,) = bench(tiny_pipeline, [1], repeats=1, seconds=0.3).batches
    assert isinstance(result, Speed)
    assert result.repeats > 1
    assert result.seconds_max * result.repeats >= 0.3


def test_what_does_not_fit_does_not_end_the_benchmark(
    tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "copy_bandwidth", lambda device: 1e9)
    measure = speed.measure

    def cramped(pipe: Pipeline, batch: int, *rest: object) -> Speed:
        if batch > 1:
            raise torch.OutOfMemoryError("tried to allocate 80 GB")
        return measure(pipe, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(speed, "measure", cramped)
    large, small = bench(tiny_pipeline, [2, 1], repeats=1).batches
    assert large == NoRoom(2)
    assert isinstance(small, Speed)


def test_an_engine_that_was_made_smaller_counts_as_out_of_memory(
    tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tiny_pipeline, "engine", lambda max_requests: Engine(tiny_pipeline.model, max_requests=1)
    )
    with pytest.raises(torch.OutOfMemoryError, match="1 of 2 images"):
        speed.measure(tiny_pipeline, 2, 1e9)


def test_the_backend_is_the_pipeline_s(
    tiny_model: AiM, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "copy_bandwidth", lambda device: 1e9)
    pipe = Pipeline(tiny_model, tiny_vq, backend="eager")
    report = bench(pipe, [1], repeats=1)
    assert (report.backend, report.trial_seconds) == ("eager", pipe.trial_seconds)
    assert pipe.engine(1).model is tiny_model
