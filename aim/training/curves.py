"""``python -m aim train curves``: the logs of runs as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from aim.errors import AimError, InvalidInput
from aim.files import replacing

SERIES = {  # of a log, with what it is on the picture
    "psnr": "validation PSNR, dB",
    "loss": "training loss with dropout, nats a code",
    "val": "validation, nats a code",
}


def draw_curves(runs: Sequence[Path], to: Path) -> None:
    """Write a PNG of what the logs in the folders ``runs`` say over the seconds of training.
    InvalidInput for a folder without a log, AimError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AimError("drawing curves needs matplotlib: pip install matplotlib") from error
    figure = Figure((4.5 * len(runs), 3), layout="constrained")
    for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
        log = run / "log.jsonl"
        if not log.is_file():
            raise InvalidInput(f"there is no {log}; give the folders of training runs")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for key, label in SERIES.items():
            points = [(line["seconds"], line[key]) for line in lines if key in line]
            if points:
                marker = "o" if len(points) < 10 else None
                axes.plot(*zip(*points, strict=True), marker=marker, label=label)
        axes.set(title=run.name, xlabel="seconds of training")
        axes.legend()
    with replacing(to) as unfinished:
        figure.savefig(unfinished, dpi=110, format="png")
