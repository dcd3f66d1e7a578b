"""A trained prior for other classes: rows of known classes are kept, new ones start at the average class."""

from __future__ import annotations

import dataclasses

import torch

from aim.errors import InvalidInput
from aim.models.prior import Prior, build


@torch.no_grad()
def with_classes(model: Prior, classes: tuple[int, ...], num_classes: int, spread: float = 0.1) -> Prior:
    """The same prior over ``num_classes`` classes, of which ``classes`` are the ImageNet indices, empty for classes of one's own.

    A class that the model knows by its ImageNet index keeps its row. A new one gets the mean of all rows, and ``spread`` of their
    deviation at random, so that new classes can part. The last row, "no class", is kept. Nothing changes where the classes are the same.
    """
    if num_classes < 1 or (classes and len(classes) != num_classes):
        raise InvalidInput(f"num_classes is {num_classes}, with {len(classes)} ImageNet classes; give at least one, and one index each")
    old = model.config
    if classes == old.classes and num_classes == old.num_classes:
        return model
    config = dataclasses.replace(old, num_classes=num_classes, classes=classes)
    weights = model.state_dict()
    [table] = [name for name in weights if name.endswith("embedding_table.weight")]
    known = weights[table][:-1]
    rows = known.mean(0) + spread * known.std(0, correction=0) * torch.randn(num_classes, known.shape[1])
    of_index = {index: row for row, index in enumerate(old.classes or range(old.num_classes))}
    for row, index in enumerate(classes):
        if index in of_index:
            rows[row] = known[of_index[index]]
    out = build(config)
    out.load_state_dict({**weights, table: torch.cat([rows, weights[table][-1:]])})
    return out
