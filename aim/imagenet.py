"""The 1000 classes of ImageNet-1k: index, WordNet id and names, and finding a class by any of
them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from importlib.resources import files

from aim.errors import InvalidInput

SUGGESTIONS = 3


@dataclass(frozen=True)
class ImageNetClass:
    """One class; ``synonyms`` holds all its WordNet names, ``name`` among them."""

    index: int
    wnid: str
    name: str
    synonyms: tuple[str, ...]


@lru_cache(maxsize=1)
def classes() -> tuple[ImageNetClass, ...]:
    """All 1000 classes, in the order of their index; read at the first call."""
    table = files("aim").joinpath("data", "imagenet_classes.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in table.splitlines()[1:]]
    return tuple(
        ImageNetClass(int(index), wnid, name, tuple(names.split(", ")))
        for index, wnid, name, names in lines
    )


def title(index: int) -> str:
    """The name with the index, as in "goldfish (1)": some classes share a name. InvalidInput for an
    index out of range.
    """
    return f"{classes()[_in_range(index, classes())].name} ({index})"


def resolve(label: int | str, known: Sequence[int] | None = None) -> int:
    """The ImageNet index of a class given as index, "1", name, synonym, wnid or title ("goldfish
    (1)"); case does not matter.

    A name stands for the class that has it as its first name before those that have it as a
    synonym. With ``known``, the indices that a model knows, only these are found. InvalidInput for
    anything else: an ambiguous name lists its classes, an unknown one the nearest three.
    """
    pool = classes() if known is None else tuple(classes()[index] for index in known)
    if isinstance(label, str):
        text = _normal(label)
        titled = re.fullmatch(r"(.+) \((\d{1,9})\)", text)
        if re.fullmatch(r"\d{1,9}", text):
            found: Sequence[int] = [_in_range(int(text), pool)]
        elif titled:
            found = [_titled(label, titled[1], _in_range(int(titled[2]), pool))]
        else:
            found = _named(text)
    else:
        try:
            number = operator.index(label)
        except TypeError:
            number = None
        if number is None or isinstance(label, bool):
            raise InvalidInput(f"class is {label!r}; it must be a name or an ImageNet index")
        found = [_in_range(number, pool)]
    return _the_one(label, found, pool)


def _the_one(label: int | str, found: Sequence[int], pool: Collection[ImageNetClass]) -> int:
    """The one class of ``found`` that is in ``pool``; else InvalidInput."""
    if not found:
        raise InvalidInput(
            f"there is no class {label!r}; {_suggest(_nearest_names(str(label), pool))}"
        )
    indices = {entry.index for entry in pool}
    usable = [index for index in found if index in indices]
    if not usable:
        missing = " or ".join(title(index) for index in found)
        raise InvalidInput(
            f"this model does not know {missing}; {_suggest(_nearest_kin(found[0], pool))}"
        )
    text = _normal(str(label))
    first_names = [index for index in usable if _normal(classes()[index].name) == text]
    chosen = first_names or usable
    if len(chosen) > 1:
        raise InvalidInput(
            f"{label!r} is ambiguous; give one of {', '.join(title(index) for index in chosen)}, "
            "or its index alone"
        )
    return chosen[0]


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


@lru_cache(maxsize=1)
def _index_of_names() -> dict[str, tuple[int, ...]]:
    """Every normalised name, wnid and whole list of synonyms -> the indices of its classes."""
    table: dict[str, list[int]] = {}
    for entry in classes():
        for key in {
            _normal(k) for k in (entry.wnid, entry.name, *entry.synonyms, ", ".join(entry.synonyms))
        }:
            table.setdefault(key, []).append(entry.index)
    return {key: tuple(indices) for key, indices in table.items()}


def _named(text: str) -> tuple[int, ...]:
    return _index_of_names().get(text, ())


def _titled(label: str, name: str, index: int) -> int:
    """``index`` if ``name`` is a name of it; InvalidInput for a title whose halves contradict each
    other.
    """
    if index not in _named(name):
        raise InvalidInput(
            f"class is {label!r}, but {index} is {title(index)}; give the name or the index alone"
        )
    return index


def _in_range(index: int, pool: Collection[ImageNetClass]) -> int:
    """``index`` if ImageNet has it; else InvalidInput."""
    if not 0 <= index < len(classes()):
        raise InvalidInput(
            f"there is no class {index}; indices go from 0 to {len(classes()) - 1}; "
            f"{_suggest(_nearest_kin(index, pool))}"
        )
    return index


def _suggest(nearest: Iterable[int]) -> str:
    titles = ", ".join(title(index) for index in nearest)
    return f"the nearest that are known: {titles}" if titles else "no class is known"


def _nearest_kin(index: int, pool: Collection[ImageNetClass]) -> list[int]:
    """Closest indices: ImageNet is ordered by WordNet, so that neighbours are alike."""
    return [
        entry.index
        for entry in sorted(pool, key=lambda e: (abs(e.index - index), e.index))[:SUGGESTIONS]
    ]


def _nearest_names(text: str, pool: Collection[ImageNetClass]) -> list[int]:
    """Closest spellings; a name that contains every word asked for ("retriever") comes before one
    that only looks alike.
    """
    text = _normal(text)[:64]  # comparing takes time in proportion to the length
    words = set(text.split())
    matcher = SequenceMatcher(None, b=text, autojunk=False)

    def closeness(entry: ImageNetClass) -> float:
        best = 0.0
        for name in map(_normal, entry.synonyms):
            matcher.set_seq1(name)
            best = max(best, matcher.ratio() + (words <= set(name.split())))
        return best

    return [entry.index for entry in sorted(pool, key=closeness, reverse=True)[:SUGGESTIONS]]
