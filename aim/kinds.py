"""What kinds of things ImageNet's classes are: "beagle" is a hound, a dog, an animal. By WordNet
3.0, whose identifiers the classes bear; ``data/WORDNET.txt`` is its licence.

``python -m aim.kinds FILE`` makes the table anew from WordNet's ``data.noun``, which Debian has in
its package wordnet-base.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from aim.classes import imagenet

TABLE = ("data", "imagenet_kinds.tsv")
# of everything, so that they say nothing
EMPTY = {"entity", "physical entity", "object", "whole", "thing", "matter", "abstraction"}


class Synset(NamedTuple):
    """A meaning in WordNet: those that it is a kind of, and its names."""

    parents: tuple[str, ...]  # identifiers
    names: tuple[str, ...]


@lru_cache(maxsize=1)
def synsets() -> dict[str, Synset]:
    """Every class of ImageNet and every kind, by identifier."""
    table = files("aim").joinpath(*TABLE).read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return {one: Synset(tuple(up.split()), tuple(names.split(", "))) for one, up, names in rows}


def kinds(wnid: str) -> list[str]:
    """Identifiers of all that a class is a kind of, the nearest first; [] for an unknown class."""
    found: list[str] = []
    near = [wnid]
    while near:
        above = [up for one in near if one in synsets() for up in synsets()[one].parents]
        near = [up for up in dict.fromkeys(above) if up not in found]
        found += near
    return found


def extracted(nouns: str) -> str:
    """The table, of the text of WordNet's ``data.noun``."""
    lines = {f"n{line[:8]}": line for line in nouns.splitlines() if line[:1].isdigit()}
    rows: dict[str, str] = {}
    wanted = [entry.wnid for entry in imagenet()]
    while wanted:
        one = wanted.pop()
        fields = lines[one].partition(" | ")[0].split(" ")
        pointers = fields[5 + 2 * int(fields[3], 16) :]
        up = [
            f"n{at}"
            for sign, at in zip(pointers[::4], pointers[1::4], strict=False)
            if sign in ("@", "@i")
        ]
        up = [at for at in up if not EMPTY & set(_names(lines[at]))]
        rows[one] = "\t".join([one, " ".join(up), ", ".join(_names(lines[one]))])
        wanted += [at for at in up if at not in rows]
    return "\n".join(["wnid\tparents\tnames", *(rows[one] for one in sorted(rows))]) + "\n"


def _names(line: str) -> list[str]:
    fields = line.split(" ")
    return [name.replace("_", " ") for name in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]


if __name__ == "__main__":
    text = extracted(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(__file__).parent.joinpath(*TABLE).write_text(text, encoding="utf-8")
    print(f"{text.count(chr(10)) - 1} synsets")
