"""Draws anew what the page shows before anybody has asked: ``python -m aim.ui.record``.

With the bundled model, in float32, one after another, into ``generate/recorded.json``. ``SHOWN``
says what: look at ``recorded.png``, which is written, too, and change the seeds until it pleases.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from aim.bench.machine import Machine
from aim.images import write
from aim.pipeline import Pipeline, load
from aim.ui.generate.recorded import FILE, PLAYED, recording

MODEL = "aim-s"
# class and seed; the first four are seen being drawn, all of them are offered as pictures to click
SHOWN = (
    (323, 2),
    (145, 6),
    (967, 3),
    (970, 1),
    (301, 5),
    (779, 1),
    (963, 2),
    (1, 2),
    (947, 2),
    (973, 6),
    (817, 4),
    (950, 2),
)


def record(pipe: Pipeline) -> str:
    """SHOWN as ``pipe`` draws them, one after another, in the format of the file."""
    machine = Machine.of(pipe.device)
    told = {
        "model": pipe.name,
        "version": pipe.version,
        "machine": f"{machine.cores} CPU cores" if machine.device == "cpu" else machine.name,
        "drawings": list(_drawn(pipe)),
    }
    return json.dumps(told, indent=1) + "\n"


def _drawn(pipe: Pipeline) -> Iterator[dict[str, Any]]:
    for label, seed in SHOWN:
        for frame in pipe.stream(label, seed=seed, preview_every=0):
            last = frame
        codes = base64.b64encode(last.codes.astype("<u2").tobytes()).decode()
        yield {"class": label, "seed": seed, "codes": codes}


def sheet(pipe: Pipeline) -> Image.Image:
    """What is in the file, to be looked at."""
    images = pipe.pictures(one.codes for one in recording().drawings)
    return write.contact_sheet(images, PLAYED, [pipe.title(label) for label, _ in SHOWN], 2)


if __name__ == "__main__":
    _pipe = load(MODEL, device="cpu", dtype="float32")
    _path = Path(__file__).parent / FILE
    _path.write_text(record(_pipe), encoding="utf-8")
    sheet(_pipe).save("recorded.png")
    print(f"{_path} and recorded.png are written; look at the picture")
