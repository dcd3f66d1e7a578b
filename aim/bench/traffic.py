"""Bytes that a decode step must move, and the least time that takes: the floor of a bandwidth."""

from __future__ import annotations

from typing import Any, NamedTuple

from aim.config import AiMConfig, GPTConfig
from aim.engine.memory import state_shapes

FLOAT32 = 4  # bytes


class Traffic(NamedTuple):
    """Bytes of one step, averaged over the steps of a sequence. Activations, modulations and logits
    are not counted.
    """

    weights: int  # read once a step, however many rows there are
    state: int  # read and written, of all rows

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.state

    def floor_ms(self, bandwidth: float) -> float:
        """Milliseconds a step at ``bandwidth`` bytes a second."""
        return 1e3 * self.total / bandwidth


def aim_matrices(config: AiMConfig) -> int:
    """Numbers in the matrices that a step reads: both projections of every layer, and the head.

    Modulations are computed once a request; of the embeddings a step reads one row.
    """
    in_proj = config.d_model * (config.d_inner + config.conv_dim + config.nheads)
    out_proj = config.d_inner * config.d_model
    return config.n_layer * (in_proj + out_proj) + config.vocab_size * config.d_model


def aim_traffic(
    config: AiMConfig, rows: int, itemsize: int, state_itemsize: int = FLOAT32
) -> Traffic:
    """A step that reads and writes the whole recurrent state of ``rows`` rows.

    ``itemsize`` is bytes a number of the matrices and of the convolution's window,
    ``state_itemsize`` of the state itself.
    """
    window = (config.d_conv - 1) * config.conv_dim * itemsize
    state = config.d_inner * config.d_state * state_itemsize
    return Traffic(aim_matrices(config) * itemsize, 2 * rows * config.n_layer * (window + state))


def gpt_matrices(config: GPTConfig) -> int:
    """Numbers in the matrices that a step reads: of every layer, and the head. Of the embeddings a
    step reads one row.
    """
    layer = config.d_model * (4 * config.d_model + 3 * config.d_ffn)
    return config.n_layer * layer + config.vocab_size * config.d_model


def gpt_traffic(config: GPTConfig, rows: int, itemsize: int, cache_itemsize: int) -> Traffic:
    """A step that reads the keys and values of the items before its own and writes its own,
    averaged over the steps of a sequence.

    ``itemsize`` is bytes a number of the matrices, ``cache_itemsize`` of the cache.
    """
    items = (config.num_tokens - 1) / 2 + 1  # 0 ... T - 1 are read, one is written
    return Traffic(
        gpt_matrices(config) * itemsize,
        int(rows * config.n_layer * 2 * config.d_model * cache_itemsize * items),
    )


def traffic(model: Any, rows: int) -> Traffic:
    """What a step of ``model`` moves at ``rows`` rows: what ``model.traffic(rows)`` says if it has
    that, else as of the eager step.
    """
    if hasattr(model, "traffic"):
        weights, state = model.traffic(rows)
        return Traffic(int(weights), int(state))
    itemsize = model.dtype.itemsize
    if isinstance(model.config, GPTConfig):
        return gpt_traffic(
            model.config, rows, itemsize, next(iter(state_shapes(model, 1))).element_size()
        )
    return aim_traffic(model.config, rows, itemsize)
