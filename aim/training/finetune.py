"""A trained prior for other classes: rows of known classes are kept, new ones start at the average
class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from aim.errors import InvalidInput
from aim.models.prior import Prior, build


@torch.no_grad()
def with_classes(
    model: Prior,
    classes: tuple[int, ...],
    num_classes: int,
    names: tuple[str, ...] = (),
    spread: float = 0.1,
) -> Prior:
    """The same prior over ``num_classes`` classes: the ImageNet indices ``classes``, or classes of
    one's own, which may have ``names``.

    A class that the model knows by its ImageNet index, or by its name among its own, keeps its row.
    A new one gets the mean of all rows, and ``spread`` of their deviation at random, so that new
    classes can part. The last row, "no class", is kept. Nothing changes where the classes are the
    same.
    """
    if num_classes < 1 or (classes and len(classes) != num_classes):
        raise InvalidInput(
            f"num_classes is {num_classes}, with {len(classes)} ImageNet classes; give at least "
            "one, and one index each"
        )
    old = model.config
    if (classes, names, num_classes) == (old.classes, old.class_names, old.num_classes):
        return model
    config = dataclasses.replace(old, num_classes=num_classes, classes=classes, class_names=names)
    weights = model.state_dict()
    [table] = [name for name in weights if name.endswith("embedding_table.weight")]
    known = weights[table][:-1]
    rows = known.mean(0) + spread * known.std(0, correction=0) * torch.randn(
        num_classes, known.shape[1]
    )
    before: Sequence[int | str] = old.class_names or old.classes or range(old.num_classes)
    row_of = {key: row for row, key in enumerate(before)}
    for row, key in enumerate(names or classes):
        if key in row_of:
            rows[row] = known[row_of[key]]
    out = build(config)
    out.load_state_dict({**weights, table: torch.cat([rows, weights[table][-1:]])})
    return out
