"""Records anew what the page shows before anybody has asked: ``python -m aim.ui.record``.

With the bundled models, in float32: drawings, one after another, into ``generate/recorded.json``,
and a race into ``race/recorded.json``. ``SHOWN`` and ``RACED`` say what: look at ``recorded.png``,
which is written, too, and change the seeds until it pleases. ``python -m aim.ui.record race``
records the race alone, and with the JSON of a race as ``aim bench race --json`` or the page saves
it, its times are those, wherever they were measured. ``python -m aim.ui.record elsewhere FILE ...``
keeps the times of races of other models on one machine in ``race/elsewhere.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from aim.bench.machine import Machine
from aim.bench.race import Race, race
from aim.errors import InvalidInput
from aim.images import write
from aim.pipeline import Pipeline, load
from aim.ui.generate.recorded import FILE, PLAYED, packed, recording
from aim.ui.race import elsewhere
from aim.ui.race import recorded as of_race

MODEL = "aim-s"
RACED = (323, 4)  # class and seed
# class and seed; the first four are seen being drawn, all of them are offered as pictures to click
SHOWN = (
    (323, 4),
    (145, 2),
    (967, 1),
    (970, 7),
    (301, 4),
    (779, 0),
    (963, 5),
    (1, 4),
    (947, 0),
    (973, 7),
    (817, 2),
    (497, 5),
)


def record(pipe: Pipeline) -> str:
    """SHOWN as ``pipe`` draws them, one after another, in the format of the file."""
    told = {
        "model": pipe.name,
        "version": pipe.version,
        "machine": where(Machine.of(pipe.device), "float32"),
        "drawings": list(_drawn(pipe)),
    }
    return json.dumps(told, indent=1) + "\n"


def record_race(pipes: Sequence[Pipeline], measured: Race | None = None) -> str:
    """A race between ``pipes``, or one that was ``measured`` elsewhere, in the format of the file.

    InvalidInput: it is one of other models, or of several pictures.
    """
    if measured is None:
        measured, _ = race(pipes, RACED[0], seed=RACED[1])
    versions = [(racer.name, racer.version) for racer in measured.racers]
    if versions != [(pipe.name, pipe.version) for pipe in pipes] or measured.batch != 1:
        raise InvalidInput(f"the race is one of {versions}, {measured.batch} pictures at once")
    codes = [drawn(pipe, measured.label, measured.seed) for pipe in pipes]
    return of_race.written(measured, codes, where(measured.machine, measured.dtype))


def record_elsewhere(races: Sequence[Race]) -> str:
    """The times of ``races``, in the format of the file. InvalidInput: they are of two machines."""
    first, *_ = found = [where(race.machine, race.dtype) for race in races]
    if set(found) != {first}:
        raise InvalidInput(f"the races are of several machines: {', '.join(sorted(set(found)))}")
    return elsewhere.written(races, first)


def where(machine: Machine, dtype: str) -> str:
    """A machine in words."""
    name = f"{machine.cores} CPU cores" if machine.device == "cpu" else f"one {machine.name}"
    return f"{name}, {dtype}"


def drawn(pipe: Pipeline, label: int, seed: int) -> np.ndarray:
    """The codes of a picture."""
    *_, last = pipe.stream(label, seed=seed, preview_every=0)
    return last.codes


def _drawn(pipe: Pipeline) -> Iterator[dict[str, Any]]:
    for label, seed in SHOWN:
        yield {"class": label, "seed": seed, "codes": packed(drawn(pipe, label, seed))}


def sheet(pipe: Pipeline) -> Image.Image:
    """What is in the file, to be looked at."""
    images = pipe.pictures(one.codes for one in recording().drawings)
    return write.contact_sheet(images, PLAYED, [pipe.title(label) for label, _ in SHOWN], 2)


def main(what: Sequence[str]) -> None:
    """Record what the command asks for; see above."""
    folder = Path(__file__).parent
    measured = [TypeAdapter(Race).validate_json(Path(path).read_bytes()) for path in what[1:]]
    if what and what[0] == "elsewhere":
        (folder / elsewhere.FILE).write_text(record_elsewhere(measured), encoding="utf-8")
        return
    aim, gpt = (load(name, device="cpu", dtype="float32") for name in of_race.MODELS)
    if not what:
        (folder / FILE).write_text(record(aim), encoding="utf-8")
        sheet(aim).save("recorded.png")
    (folder / of_race.FILE).write_text(record_race((aim, gpt), *measured), encoding="utf-8")
    print(of_race.recorded().replay["result"])


if __name__ == "__main__":
    main(sys.argv[1:])
