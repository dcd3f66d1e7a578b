"""Which classes are asked for, and how they are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from aim.config import SamplingParams
from aim.engine.backend import Backend
from aim.errors import GenerationError, InvalidInput
from aim.evaluation.drawing import balanced_rows, sample_codes, sample_images
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.tiny import random_gpt

PARAMS = SamplingParams(cfg_scale=2.0, temperature=0.9, top_k=40)


class TestBalancedRows:
    @pytest.mark.parametrize("count", [202, 203, 606, 2000])
    def test_no_class_comes_twice_more_than_another(self, count: int) -> None:
        seen = Counter(balanced_rows(count, 202))
        assert sum(seen.values()) == count
        assert seen.keys() == set(range(202))
        assert max(seen.values()) - min(seen.values()) <= 1

    @pytest.mark.parametrize("count", [1, 2, 7, 64, 101, 201])
    def test_fewer_than_there_are_classes_are_spread_over_all(self, count: int) -> None:
        rows = balanced_rows(count, 202)
        assert len(set(rows)) == count
        gaps = np.diff([*rows, 202])
        assert rows[0] == 0
        assert gaps.max() - gaps.min() <= 1

    def test_of_nothing(self) -> None:
        assert balanced_rows(0, 5) == []

    def test_is_the_same_every_time(self) -> None:
        assert balanced_rows(3, 5) == balanced_rows(3, 5) == [0, 1, 3]
        assert balanced_rows(7, 5) == [0, 1, 2, 3, 4, 0, 1]


class TestSampling:
    ROWS = (3, 0, 4, 4, 1, 2, 0)

    @pytest.mark.parametrize("batch", [1, 3, 256])
    def test_codes_are_those_of_a_pipeline(self, tiny_pipeline: Pipeline, batch: int) -> None:
        codes = sample_codes(tiny_pipeline.model, self.ROWS, PARAMS, seed=40, batch=batch)
        assert codes.shape == (7, 16)
        assert codes.dtype == torch.int64
        labels = [tiny_pipeline.classes[row] for row in self.ROWS]
        wanted = list(tiny_pipeline.draw(labels, 40, PARAMS))
        assert codes.tolist() == [drawn.tolist() for drawn in wanted]

    def test_codes_of_a_transformer_are_those_of_its_pipeline(self, tiny_vq: VQ) -> None:
        pipe = Pipeline(random_gpt(), tiny_vq, "tiny", "0123456789ab")
        codes = sample_codes(pipe.model, self.ROWS, PARAMS, seed=40, batch=3)
        wanted = pipe.draw([pipe.classes[row] for row in self.ROWS], 40, PARAMS)
        assert codes.tolist() == [drawn.tolist() for drawn in wanted]
        pipe.close()

    def test_images_are_those_of_a_pipeline(self, tiny_pipeline: Pipeline) -> None:
        images = sample_images(
            tiny_pipeline.model, tiny_pipeline.tokenizer, self.ROWS, PARAMS, seed=40, batch=3
        )
        assert images.shape == (7, 3, 16, 16)
        assert images.dtype == torch.uint8
        drawn = [
            tiny_pipeline.picture(codes)
            for codes in tiny_pipeline.draw(
                [tiny_pipeline.classes[row] for row in self.ROWS], 40, PARAMS
            )
        ]
        wanted = torch.from_numpy(np.stack([np.asarray(image) for image in drawn])).permute(
            0, 3, 1, 2
        )
        # decoded together, so rounded differently
        assert (images.int() - wanted.int()).abs().max() <= 1

    def test_a_row_that_is_no_class(self, tiny_model: AiM) -> None:
        with pytest.raises(
            InvalidInput, match=r"class row is 5; it must be a whole number in \[0, 4\]"
        ):
            sample_codes(tiny_model, [0, 5], PARAMS)

    def test_a_failure_is_raised(
        self, tiny_model: AiM, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def explode(*_: object) -> None:
            raise GenerationError("not finite")

        monkeypatch.setattr(tiny_model, "step", explode)
        monkeypatch.setattr("aim.evaluation.drawing.pick", lambda model: Backend("eager", model))
        with pytest.raises(GenerationError, match="not finite"):
            sample_images(tiny_model, tiny_vq, [0, 1], PARAMS)
