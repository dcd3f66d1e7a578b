"""What a line of a run's log says beside its losses: their means since the last line, how fast it
goes, how much is left, how much of the GPU's arithmetic is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aim.models.prior import Prior
from aim.training.parallel import Processes

# operations a second of dense bfloat16 products, in which GPUs train, as manufacturers give them;
# a name that is part of another stands behind it
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12,
    "H800 PCIe": 756e12, "H800": 989e12, "H20": 148e12, "A100": 312e12, "A800": 312e12,
    "A40": 150e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
    "RTX 6000 Ada": 364e12, "RTX A6000": 155e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


class Means:
    """Means of figures over steps, without waiting for the device; those of a step that are not
    finite do not count.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # of names: (2, names), sums and counts

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Take in the figures of a step, all on one device."""
        names = tuple(figures)
        values = torch.stack([value.detach().float() for value in figures.values()])
        finite = values.isfinite()
        both = torch.stack([values.where(finite, 0.0), finite.float()])
        self._sums[names] = self._sums[names] + both if names in self._sums else both

    def take(self, processes: Processes) -> dict[str, Tensor]:
        """The means since the last call, over all processes; a figure that was never finite is left
        out.
        """
        sums: dict[str, Tensor] = {}
        for names, both in self._sums.items():
            # all processes have these names, whatever was finite in one of them
            for name, part in zip(names, processes.mean(both).T, strict=True):
                sums[name] = sums.get(name, 0) + part
        self._sums = {}
        return {name: part[0] / part[1] for name, part in sums.items() if part[1] > 0}


def left(seconds: float, elapsed: float, steps: int, step: int, pace: float) -> float | None:
    """Seconds until the first of both budgets is spent, at ``pace`` steps a second; None where
    there is no telling.
    """
    by_clock = seconds - elapsed
    by_steps = (steps - step) / pace if pace > 0 else float("inf")
    first = max(0.0, min(by_clock, by_steps))
    return first if first < 10**8 else None


def product_parameters(model: Prior) -> int:
    """Parameters that are multiplied with every code: linear layers inside layers, and the head.
    Modulations are per image.
    """
    layers = sum(
        m.weight.numel()
        for name, m in model.layers.named_modules()
        if isinstance(m, nn.Linear) and "adaLN" not in name
    )
    return layers + model.config.vocab_size * model.config.d_model


def utilization(
    parameters: int, codes: int, images_per_second: float, device: torch.device, world: int
) -> float | None:
    """The share of the devices' arithmetic that training takes, 6 operations a parameter and code;
    None for a device whose peak is not known.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peak = next((peak for kind, peak in PEAKS.items() if kind in name), None)
    return None if peak is None else 6 * parameters * codes * images_per_second / (peak * world)
