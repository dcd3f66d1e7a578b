"""A prior for other classes: what is known is kept, what is new starts near the average."""

from __future__ import annotations

import pytest
import torch

from aim.errors import InvalidInput
from aim.models.aim.model import AiM
from aim.training.finetune import with_classes


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
