"""Bytes that a decode step must move, and the least time that takes: the floor of a bandwidth."""

from __future__ import annotations

from typing import NamedTuple

from aim.config import AiMConfig, GPTConfig

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
    config: AiMConfig, rows: int, itemsize: int, window_itemsize: int, state_itemsize: int = FLOAT32
) -> Traffic:
    """A step that reads and writes the whole recurrent state of ``rows`` rows.

    ``itemsize`` is bytes a number of the matrices, ``window_itemsize`` of the convolution's window,
    ``state_itemsize`` of the state itself.
    """
    window = (config.d_conv - 1) * config.conv_dim * window_itemsize
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
