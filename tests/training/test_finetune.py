"""A prior for other classes: what is known is kept, what is new starts near the average. A larger
tokenizer: what is there is kept, new codes start near old ones.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from aim.errors import InvalidInput
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.training.finetune import grown, with_classes, with_codes
from tests.tiny import random_gpt


def table(model: AiM) -> torch.Tensor:
    return model.cls_embed.embedding_table.weight


def test_the_same_classes_change_nothing(tiny_model: AiM) -> None:
    assert (
        with_classes(tiny_model, tiny_model.config.classes, tiny_model.config.num_classes)
        is tiny_model
    )


def test_known_classes_keep_their_rows_and_draw_the_same(tiny_model: AiM) -> None:
    old = tiny_model.config.classes
    assert len(old) == 5
    new = with_classes(tiny_model, (old[3], 999, old[0]), 3)
    assert new.config.classes == (old[3], 999, old[0]) and new.config.num_classes == 3
    assert torch.equal(table(new)[[0, 2, 3]], table(tiny_model)[[3, 0, 5]])
    codes = torch.randint(0, 64, (2, 15))
    assert torch.equal(
        new.eval()(codes, torch.tensor([0, 3])), tiny_model(codes, torch.tensor([3, 5]))
    )


def test_new_classes_start_near_the_average_and_apart(tiny_model: AiM) -> None:
    new = table(with_classes(tiny_model, (), 400))[:-1]
    known = table(tiny_model)[:-1]
    assert torch.allclose(new.mean(0), known.mean(0), atol=0.03 * known.std().item() + 0.02)
    ratio = (new.std(0) / known.std(0, correction=0)).mean().item()
    assert ratio == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("classes", "count"), [((), 0), ((1, 2), 3)])
def test_counts_that_disagree_are_refused(
    tiny_model: AiM, classes: tuple[int, ...], count: int
) -> None:
    with pytest.raises(InvalidInput, match=f"num_classes is {count}"):
        with_classes(tiny_model, classes, count)


class TestGrown:
    def test_the_same_tokenizer_is_itself(self, tiny_vq: VQ) -> None:
        assert grown(tiny_vq, dataclasses.replace(tiny_vq.config)) is tiny_vq

    def test_a_further_level_keeps_what_codes_mean(self, tiny_vq: VQ) -> None:
        new = grown(tiny_vq, dataclasses.replace(tiny_vq.config, decoder_ch_mult=(1, 1, 2, 2)))
        images = torch.rand(2, 3, 16, 16) * 2 - 1
        with torch.no_grad():
            codes = tiny_vq.encode(images)
            assert torch.equal(new.encode(images), codes)
            assert new.decode(codes).shape == (2, 3, 32, 32)
        old, state = tiny_vq.state_dict(), new.state_dict()
        assert all(torch.equal(state[name], weight) for name, weight in old.items())
        assert all(".3." in n or ".2.upsample" in n for n in state.keys() - old.keys())
        assert len(state) > len(old)

    def test_more_codes_start_around_the_old_ones(self, tiny_vq: VQ) -> None:
        torch.manual_seed(0)
        new = grown(tiny_vq, dataclasses.replace(tiny_vq.config, codebook_size=3 * 64))
        with torch.no_grad():
            near = F.cosine_similarity(
                new.quantize.normalized().view(3, 64, -1), tiny_vq.quantize.normalized(), dim=-1
            )
        assert near.min() > 0.85
        assert near.mean() > 0.96
        assert near.max() < 1 - 1e-6, "no two are the same"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"codebook_size": 100}, "codebook_size is 100, not 64"),
            ({"codebook_size": 32}, "codebook_size is 32, not 64"),
            ({"ch": 64}, "ch is 64, not 32"),
            (
                {"decoder_ch_mult": (1, 1, 2, 1)},
                r"decoder_ch_mult is \(1, 1, 2, 1\), not \(\).* levels at the decoder's end",
            ),
        ],
    )
    def test_other_differences_are_refused(
        self, tiny_vq: VQ, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidInput, match=message):
            grown(tiny_vq, dataclasses.replace(tiny_vq.config, **changes))


class TestAnotherSize:
    def test_positions_are_interpolated_over_the_grid(self, tiny_model: AiM) -> None:
        model = copy.deepcopy(tiny_model)
        table = model.embeddings.position_embeddings.weight
        lines = torch.arange(16.0) // 4 + 1  # 1 to 4, line by line, of a grid of 4
        table.copy_(torch.cat([lines, torch.tensor([9.0])])[:, None].expand_as(table))
        larger = with_codes(model, 64)
        assert larger.config == dataclasses.replace(model.config, num_tokens=64)
        grid = larger.embeddings.position_embeddings.weight[:-1, 0].view(8, 8)
        assert torch.allclose(grid, grid[:, :1].expand_as(grid), atol=1e-5), "a line is alike"
        assert (grid[1:, 0] - grid[:-1, 0] > 0)[1:-1].all()
        assert grid[3:5, 0].mean().item() == pytest.approx(2.5)
        assert larger.embeddings.position_embeddings.weight[-1, 0] == 9
        kept, same = model.state_dict(), larger.state_dict()
        assert all(torch.equal(same[n], w) for n, w in kept.items() if "position" not in n)
        assert with_codes(model, 16) is model

    def test_rotary_positions_go_on(self) -> None:
        model = random_gpt()
        larger = with_codes(model, 64).eval()
        assert larger(torch.zeros(1, 63, dtype=torch.long), torch.tensor([1])).shape == (1, 64, 64)

    def test_a_number_that_is_no_square_is_refused(self, tiny_model: AiM) -> None:
        with pytest.raises(InvalidInput, match="from 16 to 60 codes an image"):
            with_codes(tiny_model, 60)

    def test_a_tokenizer_keeps_its_weights(self, tiny_vq: VQ) -> None:
        config = dataclasses.replace(tiny_vq.config, image_size=32)
        larger = grown(tiny_vq, config)
        assert larger.config.grid == 8
        weights = larger.state_dict()
        assert all(torch.equal(weights[name], w) for name, w in tiny_vq.state_dict().items())
