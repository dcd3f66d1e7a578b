"""Deterministic weights for golden tests: no file, the same values on any machine.

``fill(state_dict)`` overwrites every floating tensor with values that depend only on the tensor's
name, its shape and the element's index (splitmix64), scaled so that activations stay near unit
size.
"""

import zlib

import numpy as np
import torch


def uniform(name: str, shape: tuple[int, ...], salt: int = 0) -> np.ndarray:
    """Values in (-1, 1), float64, from a splitmix64 hash of (name, salt, element index)."""
    n = int(np.prod(shape)) if shape else 1
    with np.errstate(over="ignore"):
        seed = np.uint64(zlib.crc32(name.encode()) + (salt << 32))
        z = (
            np.arange(1, n + 1, dtype=np.uint64) + seed * np.uint64(0x632BE59BD9B4E019)
        ) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return (2.0 * u - 1.0).reshape(shape)


def value(name: str, shape: tuple[int, ...], salt: int = 0) -> np.ndarray:
    """The golden value of the parameter called ``name`` in the official checkpoint layout."""
    u = uniform(name, shape, salt)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "A_log":
        return np.log(1.0 + 7.5 * (u + 1.0))
    if leaf == "dt_bias":
        dt = np.exp((u + 1.0) / 2 * (np.log(0.1) - np.log(0.001)) + np.log(0.001))
        return dt + np.log(-np.expm1(-dt))
    if leaf == "D" or ("norm" in name and leaf == "weight"):
        return 1.0 + 0.1 * u
    if leaf == "bias":
        return 0.05 * u
    if leaf == "scale_shift_table":
        return 0.3 * u
    if "embed" in name or "lm_head" in name:
        return 0.5 * u
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
    return u * np.sqrt(3.0 / fan_in)


def fill(state_dict: dict[str, torch.Tensor], salt: int = 0) -> None:
    """Overwrite ``state_dict`` in place; a tied tensor takes the value of its first name in sorted
    order.
    """
    seen: set[int] = set()
    for name in sorted(state_dict):
        t = state_dict[name]
        if not t.is_floating_point() or t.data_ptr() in seen:
            continue
        seen.add(t.data_ptr())
        t.copy_(torch.from_numpy(value(name, tuple(t.shape), salt)).to(t.dtype))
