"""A race between tiny models of both families: fair turns, numbers that follow from the laps,
refusals, and how it ends early.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Callable

import numpy as np
import pytest
import torch
from rich.console import Console

from aim.bench import machine, runs
from aim.bench.race import Race, gates, race, ratios, turns
from aim.bench.runs import Spread, Stopped
from aim.bench.table import as_csv, as_json, race_table
from aim.config import SamplingParams
from aim.engine import Engine, Request
from aim.errors import GenerationError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.bench.rivals import gpt_pipeline

CPU = torch.device("cpu")


@pytest.fixture
def rival(tiny_vq: VQ) -> Pipeline:
    return gpt_pipeline(tiny_vq)


@pytest.fixture(scope="module")
def result(tiny_model: AiM, tiny_vq: VQ) -> Race:
    """Of pipelines like ``tiny_pipeline`` and ``rival``; read only."""
    pair = [Pipeline(tiny_model, tiny_vq, "tiny", "0123456789ab"), gpt_pipeline(tiny_vq)]
    found, _ = race(pair, batch=2, bandwidth=1e9)
    for pipe in pair:
        pipe.close()
    return found


def tiny_request(seed: int) -> Request:
    return Request(0, SamplingParams(), seed)


class Clock:
    """Stands for the module ``time``: every look at it is a second later than the one before."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


class TestTurns:
    @pytest.mark.parametrize("racers", [2, 3])
    def test_each_runs_once_a_round_in_an_order_of_its_own(self, racers: int) -> None:
        order = turns(racers, 20, seed=0)
        rounds = [order[i : i + racers] for i in range(0, len(order), racers)]
        assert len(rounds) == 20
        assert all(sorted(some) == list(range(racers)) for some in rounds)
        assert len(set(rounds)) > 1

    def test_the_seed_decides(self) -> None:
        assert turns(2, 10, seed=4) == turns(2, 10, seed=4)
        assert len({turns(2, 10, seed) for seed in range(5)}) > 1

    def test_laps_are_run_in_that_order(self, tiny_pipeline: Pipeline, rival: Pipeline) -> None:
        said: list[str] = []
        found, _ = race([tiny_pipeline, rival], laps=6, seed=5, bandwidth=1e9, say=said.append)
        run = [text.partition(":")[0] for text in said if "lap" in text]
        assert found.order == turns(2, 6, seed=5)
        assert run == [found.racers[turn].name for turn in found.order]
        assert said[:2] == ["tiny: warming up", "tiny-gpt: warming up"]
        assert {len(racer.laps) for racer in found.racers} == {6}


class TestNumbers:
    def test_spreads_are_of_the_laps(self, result: Race) -> None:
        for racer in result.racers:
            assert len(racer.laps) == result.laps == 5
            for name in ("codes_seconds", "first_code_seconds", "decode_seconds", "seconds"):
                values = [getattr(lap, name) for lap in racer.laps]
                assert getattr(racer, name) == Spread(
                    statistics.median(values), min(values), max(values)
                )
            assert racer.codes_per_second == pytest.approx(
                result.batch * result.tokens / racer.codes_seconds.median
            )
            assert racer.images_per_second == pytest.approx(result.batch / racer.seconds.median)

    def test_every_code_has_a_time(self, result: Race) -> None:
        for lap in (lap for racer in result.racers for lap in racer.laps):
            times = np.array(lap.code_seconds)
            assert times.shape == (result.tokens,)
            assert times[0] > 0
            assert (np.diff(times) > 0).all()
            assert times[-1] <= lap.codes_seconds
            assert (lap.first_code_seconds, lap.seconds) == (
                times[0],
                lap.codes_seconds + lap.decode_seconds,
            )

    def test_the_clock_is_believed(
        self, tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        for module in (runs, machine):
            monkeypatch.setattr(module, "time", clock)
        engine = Engine(tiny_pipeline.model, max_requests=2)
        drawn = runs.timed(engine, [tiny_request(seed) for seed in range(2)], CPU)
        total = tiny_pipeline.model.config.num_tokens
        assert drawn.at == [1.0 + i for i in range(total)]
        assert drawn.seconds == 2.0 + total, "the batch is submitted behind the first mark"
        assert drawn.codes.shape == (2, total)

    def test_the_replayed_lap_has_the_median_total(self, result: Race) -> None:
        for racer in result.racers:
            assert racer.replay.seconds == racer.seconds.median
            even = dataclasses.replace(racer, laps=racer.laps[:4])
            assert even.replay.seconds == sorted(lap.seconds for lap in racer.laps[:4])[1]

    def test_floors_are_each_model_s_own(
        self, result: Race, tiny_pipeline: Pipeline, rival: Pipeline
    ) -> None:
        for racer, pipe in zip(result.racers, (tiny_pipeline, rival), strict=True):
            model = pipe.engine(1).model
            moved = model.traffic(2 * result.batch)
            assert (racer.weight_bytes, racer.state_bytes) == moved
            assert racer.floor_ms == pytest.approx(moved.floor_ms(1e9))
            assert racer.floor_fraction == pytest.approx(
                racer.floor_ms * result.tokens / (1e3 * racer.codes_seconds.median)
            )
            assert racer.parameters == sum(weight.numel() for weight in pipe.model.parameters())
            assert racer.sequence_bytes == sum(part.nbytes for part in model.new_state(2))
            assert racer.memory_bytes > racer.sequence_bytes * result.batch

    def test_without_guidance_an_image_is_one_row(
        self, tiny_pipeline: Pipeline, rival: Pipeline
    ) -> None:
        found, _ = race([tiny_pipeline, rival], params=SamplingParams(cfg_scale=1.0), bandwidth=1e9)
        for racer, pipe in zip(found.racers, (tiny_pipeline, rival), strict=True):
            assert racer.sequence_bytes == sum(
                part.nbytes for part in pipe.engine(1).model.new_state(1)
            )

    def test_both_do_the_same_work(
        self, result: Race, tiny_pipeline: Pipeline, rival: Pipeline
    ) -> None:
        assert [(racer.name, racer.family) for racer in result.racers] == [
            ("tiny", "AiM"),
            ("tiny-gpt", "GPT"),
        ]
        assert (result.label, result.batch, result.tokens, result.image_size, result.dtype) == (
            1,
            2,
            16,
            16,
            "float32",
        )
        assert result.sampling == tiny_pipeline.sampling != rival.sampling

    def test_pictures_are_those_of_the_pipelines(
        self, tiny_pipeline: Pipeline, rival: Pipeline
    ) -> None:
        params = SamplingParams(cfg_scale=2.0)
        _, pictures = race(
            [tiny_pipeline, rival], 281, batch=2, params=params, seed=7, bandwidth=1e9
        )
        for pipe, drawn in zip((tiny_pipeline, rival), pictures, strict=True):
            codes = list(pipe.draw([281, 281], seed=7, params=params))
            np.testing.assert_array_equal(drawn.codes, codes)
            np.testing.assert_array_equal(
                drawn.images, [np.asarray(image) for image in pipe.pictures(codes)]
            )
        rival.close()

    def test_progress_and_words_come_between_laps_only(
        self, tiny_pipeline: Pipeline, rival: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside, done = [False], []
        timed = runs.timed

        def watched(*arguments: object) -> runs.Drawn:
            inside[0] = True
            drawn = timed(*arguments)  # type: ignore[arg-type]
            inside[0] = False
            return drawn

        def progress(some: int, total: int) -> None:
            assert not inside[0]
            done.append((some, total))

        monkeypatch.setattr("aim.bench.racers.timed", watched)
        race([tiny_pipeline, rival], bandwidth=1e9, progress=progress)
        assert done == [(some, 12) for some in range(13)]


class TestStop:
    @pytest.mark.parametrize("calls", [0, 5, 40, 100])
    def test_at_any_step_it_ends_and_leaves_the_engines_idle(
        self, tiny_pipeline: Pipeline, rival: Pipeline, monkeypatch: pytest.MonkeyPatch, calls: int
    ) -> None:
        engines: list[Engine] = []
        for pipe in (tiny_pipeline, rival):
            made = pipe.engine
            monkeypatch.setattr(
                pipe, "engine", lambda size, made=made: engines.append(made(size)) or engines[-1]
            )
        asked = iter(range(10**6))
        with pytest.raises(Stopped, match="stopped"):
            race([tiny_pipeline, rival], bandwidth=1e9, stop=lambda: next(asked) >= calls)
        assert next(asked) == calls + 1
        assert engines
        assert all(engine.idle for engine in engines)
        assert len(runs.draw(engines[0], [tiny_request(0)])) == 1

    def test_between_two_pictures_it_ends_too(self, tiny_pipeline: Pipeline) -> None:
        codes = np.zeros((3, 16), np.int64)
        asked = iter([False, True])
        with pytest.raises(Stopped):
            runs.decode_images(tiny_pipeline._image_decoder, codes, lambda: next(asked))

    def test_is_an_error_that_a_page_can_tell(self) -> None:
        assert issubclass(Stopped, GenerationError)


class TestRefusals:
    def test_one_model(self, tiny_pipeline: Pipeline) -> None:
        with pytest.raises(InvalidInput, match="two models or more, not 1"):
            race([tiny_pipeline])

    def test_another_tokenizer(self, tiny_pipeline: Pipeline, tiny_vq: VQ) -> None:
        other = VQ(dataclasses.replace(tiny_vq.config, z_channels=64)).eval()
        with pytest.raises(
            InvalidInput, match="tiny and tiny-gpt cannot race, as the tokenizer's configuration is"
        ):
            race([tiny_pipeline, gpt_pipeline(other)])

    def test_other_lengths_and_codebooks(self, tiny_pipeline: Pipeline, tiny_vq: VQ) -> None:
        with pytest.raises(InvalidInput, match="number of codes is 16 and 64"):
            finer = VQ(dataclasses.replace(tiny_vq.config, ch_mult=(1, 2)))
            race([tiny_pipeline, gpt_pipeline(finer, num_tokens=64)])
        with pytest.raises(InvalidInput, match="codebook is 64 and 32"):
            smaller = VQ(dataclasses.replace(tiny_vq.config, codebook_size=32))
            race([tiny_pipeline, gpt_pipeline(smaller, vocab_size=32)])

    def test_another_precision(
        self, tiny_pipeline: Pipeline, tiny_vq: VQ, make_model: Callable[..., AiM]
    ) -> None:
        half = Pipeline(make_model().to_dtype(torch.bfloat16), tiny_vq, "half")
        with pytest.raises(InvalidInput, match=r"precision is torch\.float32 and torch\.bfloat16"):
            race([tiny_pipeline, half])

    @pytest.mark.parametrize(
        ("batch", "laps", "seed"),
        [(0, 5, 0), (4097, 5, 0), (1, 4, 0), (2, 5, 2**32 - 1), (True, 5, 0)],
    )
    def test_values_out_of_range(
        self, tiny_pipeline: Pipeline, rival: Pipeline, batch: int, laps: int, seed: int
    ) -> None:
        with pytest.raises(InvalidInput, match=r"^(batch|laps|seed) is"):
            race([tiny_pipeline, rival], batch=batch, laps=laps, seed=seed, bandwidth=1e9)

    def test_a_class_that_one_does_not_know(self, tiny_pipeline: Pipeline, tiny_vq: VQ) -> None:
        with pytest.raises(InvalidInput):
            race([tiny_pipeline, gpt_pipeline(tiny_vq, classes=(2, 3, 4, 5, 6))], label=207)
        with pytest.raises(InvalidInput, match="no class in common"):
            race([tiny_pipeline, gpt_pipeline(tiny_vq, classes=(2, 3, 4, 5, 6))])

    def test_what_does_not_fit(
        self, tiny_pipeline: Pipeline, rival: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rival, "engine", lambda size: Engine(rival.model, max_requests=1))
        with pytest.raises(InvalidInput, match="batch is 2, which does not fit"):
            race([tiny_pipeline, rival], batch=2, bandwidth=1e9)

    def test_a_model_that_breaks_is_heard_of(
        self, tiny_pipeline: Pipeline, rival: Pipeline
    ) -> None:
        rival.model.norm.weight.fill_(float("nan"))
        with pytest.raises(GenerationError, match="not finite"):
            race([tiny_pipeline, rival], bandwidth=1e9)


class TestOutput:
    def test_json_holds_all_of_it(self, result: Race) -> None:
        found = json.loads(as_json(result))
        assert found["order"] == list(result.order)
        for racer, told in zip(result.racers, found["racers"], strict=True):
            assert told["codes_seconds"] == dataclasses.asdict(racer.codes_seconds)
            for lap, values in zip(racer.laps, told["laps"], strict=True):
                assert tuple(values["code_seconds"]) == lap.code_seconds
                assert (values["first_code_seconds"], values["seconds"]) == (
                    lap.first_code_seconds,
                    lap.seconds,
                )

    def test_json_without_the_time_of_every_code(self, result: Race) -> None:
        short, long = as_json(result, timestamps=False), as_json(result)
        assert "\n" not in short
        assert len(short) < len(long)
        assert all(
            "code_seconds" not in lap
            for racer in json.loads(short)["racers"]
            for lap in racer["laps"]
        )

    def test_csv_has_a_row_for_every_lap(self, result: Race) -> None:
        rows = list(csv.DictReader(io.StringIO(as_csv(result))))
        assert [row["model"] for row in rows] == [result.racers[turn].name for turn in result.order]
        assert [int(row["lap"]) for row in rows] == list(range(1, 11))
        for racer in result.racers:
            mine = [row for row in rows if row["model"] == racer.name]
            for row, lap in zip(mine, racer.laps, strict=True):
                assert float(row["seconds"]) == pytest.approx(lap.seconds, abs=1e-6)
                assert float(row["first_code_seconds"]) == pytest.approx(
                    lap.first_code_seconds, abs=1e-6
                )
                assert (row["class"], row["batch"], row["cfg_scale"], row["version"]) == (
                    "1",
                    "2",
                    "3.0",
                    racer.version,
                )

    def test_table_has_a_column_for_each(self, result: Race) -> None:
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(race_table(result))
        text = console.export_text()
        assert "tiny against tiny-gpt, 2 at once, 16 codes each, goldfish (1), float32" in text
        assert f"{result.racers[1].codes_per_second:,.0f}" in text
        assert "guidance 3" in text

    def test_ratios_are_taken_within_rounds(self, result: Race) -> None:
        first, other = result.racers
        laps = tuple(
            dataclasses.replace(lap, codes_seconds=lap.codes_seconds / 3) for lap in first.laps
        )
        (line,) = ratios(
            dataclasses.replace(result, racers=(first, dataclasses.replace(other, laps=laps)))
        )
        assert line.startswith("tiny over tiny-gpt: codes 3.00 (3.00 - 3.00), ")

    def test_gates_compare_within_the_race(self, result: Race) -> None:
        steady = Spread(1.0, 0.9, 1.1)
        quiet = [
            dataclasses.replace(racer, codes_seconds=steady, floor_fraction=0.4)
            for racer in result.racers
        ]
        assert [holds for _, holds in gates(dataclasses.replace(result, racers=tuple(quiet)))] == [
            True,
            True,
            True,
        ]
        weak = dataclasses.replace(
            quiet[1], codes_seconds=Spread(1.0, 0.5, 1.1), floor_fraction=0.2
        )
        found = gates(dataclasses.replace(result, racers=(quiet[0], weak)))
        assert [holds for _, holds in found] == [True, False, False]
        assert found[2][0] == "40% and 20% of their own floors, at most 10 points apart"
