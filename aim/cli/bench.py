"""What ``python -m aim bench`` does: load, measure while a line on standard error says what, print,
write files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aim.bench.race import gates, race, ratios
from aim.bench.scaling import scaling, verdicts
from aim.bench.speed import bench, parse_batches, parse_numbers
from aim.bench.table import as_csv, as_json, as_table, race_table, scaling_table
from aim.bench.weights import random_pipeline
from aim.config import MODELS
from aim.errors import InvalidInput
from aim.files import replace
from aim.pipeline import Pipeline, load


@dataclass(frozen=True)
class Where:
    """How models are loaded: names of device, dtype and backend, and whether with random
    weights.
    """

    device: str
    dtype: str
    backend: str
    random_weights: bool

    def pipeline(self, name: str) -> Pipeline:
        """The model called ``name``."""
        return (random_pipeline if self.random_weights else load)(
            name, self.device, self.dtype, self.backend
        )


class Outputs:
    """Files for a result, None for none. InvalidInput if one cannot be written: better before the
    measurement than after it.
    """

    def __init__(self, json: Path | None, csv: Path | None) -> None:
        self._json, self._csv = json, csv
        for option, path in (("--json", json), ("--csv", csv)):
            if path is None:
                continue
            folder = path.resolve().parent
            if (
                wrong := f"there is no folder {folder}"
                if not folder.is_dir()
                else "it is a folder"
                if path.is_dir()
                else ""
            ):
                raise InvalidInput(
                    f"cannot write {path}: {wrong}; choose another file with {option}"
                )

    def write(self, json: str, csv: str = "") -> None:
        """Write what was asked for."""
        for path, text in ((self._json, json + "\n"), (self._csv, csv)):
            if path is not None:
                replace(path, text)


def measure_one(
    where: Where, outputs: Outputs, name: str, batch: str, repeats: int, seconds: float
) -> None:
    """One model at every batch size in ``batch``."""
    batches = parse_batches(batch)
    with _saying() as say:
        report = bench(where.pipeline(name), batches, repeats, seconds, say)
    line = as_json(report)
    _show(as_table(report), [], line)
    outputs.write(line)


def race_two(
    where: Where,
    outputs: Outputs,
    name: str,
    against: str | None,
    batch: str,
    laps: int,
    label: str | None,
    judge: bool,
) -> bool:
    """A race of two models; whether its gates hold, True where ``judge`` does not ask. Only the
    file of JSON has the time of every code.
    """
    other, batches = _other(name, against), parse_batches(batch)
    if len(batches) > 1:
        raise InvalidInput(f"batch is {batch!r}; a race takes one batch size")
    with _saying() as say:
        result, _ = race(
            [where.pipeline(name), where.pipeline(other)], label, batches[0], laps, say=say
        )
    found = gates(result) if judge else []
    notes = [*ratios(result), *(f"{'ok' if holds else 'missed'}: {what}" for what, holds in found)]
    _show(race_table(result), notes, as_json(result, timestamps=False))
    outputs.write(as_json(result), as_csv(result))
    return all(holds for _, holds in found)


def scale_two(
    where: Where,
    outputs: Outputs,
    name: str,
    against: str | None,
    tokens: str,
    batch: str,
    seconds: float,
) -> None:
    """Two models at every number of codes and batch size, in about ``seconds`` if not 0."""
    names = (name, _other(name, against))
    sizes = parse_numbers("tokens", tokens, 2**20), parse_batches(batch)
    with _saying() as say:
        result = scaling(
            names, *sizes, where.device, where.dtype, where.backend, seconds or None, say
        )
    line = as_json(result)
    _show(scaling_table(result), verdicts(result), line)
    outputs.write(line, as_csv(result))


@contextmanager
def _saying() -> Iterator[Callable[[str], object]]:
    """A line on standard error while something is measured, and the function that changes it."""
    with Console(stderr=True).status("Loading the model ...") as status:
        yield lambda text: status.update(f"Measuring: {text} ...")


def _show(table: Table, notes: list[str], line: str) -> None:
    Console().print(table)
    for text in (*notes, line):
        print(text)


def _other(name: str, against: str | None) -> str:
    """Whom ``name`` is measured against."""
    if against is not None:
        return against
    family, _, size = name.partition("-")
    other = f"{'gpt' if family == 'aim' else 'aim'}-{size}"
    if name not in MODELS or other not in MODELS:
        raise InvalidInput(
            f"nothing is said of whom {name!r} is measured against; name a model with --against"
        )
    return other
