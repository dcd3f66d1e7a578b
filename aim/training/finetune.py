"""A trained model as the start of another: a prior for other classes or sizes, a tokenizer for
another size or with more levels or codes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from aim.config import VQConfig
from aim.errors import InvalidInput
from aim.models.prior import Prior, build
from aim.models.vq.model import VQ


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


@torch.no_grad()
def with_codes(model: Prior, num_tokens: int) -> Prior:
    """The same prior for pictures of ``num_tokens`` codes, a square grid: position embeddings are
    interpolated over the grid bicubically; rotary ones go on by themselves. InvalidInput for a
    number that is no square.
    """
    old = model.config
    if num_tokens == old.num_tokens:
        return model
    before, after = math.isqrt(old.num_tokens), math.isqrt(num_tokens)
    if before**2 != old.num_tokens or after**2 != num_tokens:
        raise InvalidInput(
            f"from {old.num_tokens} to {num_tokens} codes an image positions cannot be "
            "interpolated: both must be squares"
        )
    out = build(dataclasses.replace(old, num_tokens=num_tokens))
    weights = model.state_dict()
    for name in (name for name in weights if name.endswith("position_embeddings.weight")):
        table = weights[name]  # of every code, and one row behind the last
        grid = table[:-1].float().T.reshape(1, -1, before, before)
        large = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
        rows = large.reshape(table.shape[1], -1).T.to(table.dtype)
        weights[name] = torch.cat([rows, table[-1:]])
    out.load_state_dict(weights)
    return out


def grown(old: VQ, config: VQConfig, noise: float = 0.08) -> VQ:
    """``old`` as a tokenizer of ``config``: the same, for images of another size, with further
    levels at the decoder's end, fresh, and with a codebook some times as large, each code several
    times with ``noise`` added. InvalidInput where they differ in anything else.
    """
    if old.config == config:
        return old
    times, rest = divmod(config.codebook_size, old.config.codebook_size)
    levels = old.config.decoder_levels
    alike = dataclasses.replace(
        old.config,
        image_size=config.image_size,
        codebook_size=config.codebook_size,
        decoder_ch_mult=config.decoder_ch_mult,
    )
    if rest or alike != config or config.decoder_levels[-len(levels) :] != levels:
        ours, theirs = dataclasses.asdict(config), dataclasses.asdict(old.config)
        apart = (f"{k} is {v}, not {theirs[k]}" for k, v in ours.items() if v != theirs[k])
        raise InvalidInput(
            f"the tokenizer to start from cannot become this one: {', '.join(apart)}; only its "
            "image_size may change, and levels at the decoder's end and a multiple of its codes be "
            "added; name its own with "
            "--config"
        )
    model = VQ(config)
    state, mine = old.state_dict(), model.state_dict()
    if times > 1:
        table = F.normalize(state["quantize.embedding.weight"], dim=1).repeat(times, 1)
        state["quantize.embedding.weight"] = table + noise * torch.randn_like(table)
    kept = {name: w for name, w in state.items() if name in mine and mine[name].shape == w.shape}
    model.load_state_dict({**mine, **kept})
    return model
