"""The classes of a model, ImageNet's 1000 or its own, and finding one by index or name."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, SupportsIndex

from aim.checks import quoted
from aim.config import PriorConfig
from aim.errors import InvalidInput

SUGGESTIONS = 3


@dataclass(frozen=True)
class Class:
    """One class; ``synonyms`` holds all its names, of ImageNet's those of WordNet, ``name`` among
    them.
    """

    index: int
    wnid: str  # of WordNet; empty for a class of a model's own
    name: str
    synonyms: tuple[str, ...]

    @property
    def title(self) -> str:
        """The name with the index, as some share a name: "goldfish (1)"; "class 3" where nobody
        named it.
        """
        return self.name if self.name == _unnamed(self.index) else f"{self.name} ({self.index})"


@lru_cache(maxsize=1)
def imagenet() -> tuple[Class, ...]:
    """The 1000 classes of ImageNet-1k, in the order of their index; read at the first call."""
    table = files("aim").joinpath("data", "imagenet_classes.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in table.splitlines()[1:]]
    return tuple(
        Class(int(index), wnid, name, tuple(names.split(", ")))
        for index, wnid, name, names in lines
    )


class Labels:
    """Finds the class that a person means among ``entries``, of which a model knows ``indices``,
    in the order of its rows.
    """

    def __init__(self, entries: tuple[Class, ...], indices: Sequence[int] | None = None) -> None:
        self.indices = tuple(range(len(entries)) if indices is None else indices)
        self._entries = entries
        self._rows = {index: row for row, index in enumerate(self.indices)}

    @classmethod
    def of(cls, config: PriorConfig) -> Labels:
        """Of a model: ImageNet's where it says so or has a thousand without names."""
        if config.classes:
            return cls(imagenet(), config.classes)
        if not config.class_names and config.num_classes == len(imagenet()):
            return cls(imagenet())
        names = config.class_names or [_unnamed(i) for i in range(config.num_classes)]
        return cls(tuple(Class(i, "", name, (name,)) for i, name in enumerate(names)))

    def row(self, index: int) -> int:
        """The model's row of a class, as ``resolve`` returns it."""
        return self._rows[index]

    def name(self, index: int) -> str:
        """What a class is called: "goldfish"; "class 3" where nobody named it."""
        return self._entries[index].name

    def key(self, index: int) -> str:
        """What a folder of its images is called: the wnid, or the name of a class of one's own."""
        entry = self._entries[index]
        return entry.wnid or composed(entry.name)

    def title(self, index: int) -> str:
        """The name with the index; see ``Class``."""
        return self._entries[index].title

    def resolve(self, label: SupportsIndex | str) -> int:
        """The index of a class: of any integer itself, of a text the class that has it as its name,
        synonym, wnid or title ("goldfish (1)"), and else that of the index "1".

        Case does not matter where it need not, nor how accents are encoded. A name stands for the
        class that has it as its first name before those that have it as a synonym. InvalidInput for
        anything else: an ambiguous name lists its classes, an unknown one the nearest three.
        """
        found = self._named(label) if isinstance(label, str) else (_integer(label),)
        if not found:
            nearest = self._suggest(self._nearest_names(str(label)))
            raise InvalidInput(f"there is no class {quoted(label)}; {nearest}")
        for index in found:
            if not 0 <= index < len(self._entries):
                raise InvalidInput(
                    f"there is no class {index}; indices go from 0 to {len(self._entries) - 1}; "
                    f"{self._suggest(self._nearest_kin(index))}"
                )
        usable = [index for index in found if index in self._rows]
        if not usable:
            missing = " or ".join(self.title(index) for index in found)
            raise InvalidInput(
                f"this model does not know {missing}; {self._suggest(self._nearest_kin(found[0]))}"
            )
        # folders may be called cat and Cat; in ImageNet's names capitals say nothing
        for spell in (_normal,) if self._entries[usable[0]].wnid else (_spelt, _normal):
            first = [i for i in usable if spell(self.name(i)) == spell(str(label))]
            if len(first) == 1:
                return first[0]
        if len(usable) > 1:
            raise InvalidInput(
                f"{quoted(label)} is ambiguous; give one of "
                f"{', '.join(self.title(index) for index in first or usable)}, or its index alone"
            )
        return usable[0]

    @cached_property
    def _of_name(self) -> dict[str, tuple[int, ...]]:
        return _by_name(self._entries)

    def _named(self, label: str) -> tuple[int, ...]:
        text = _normal(label)
        if text in self._of_name:
            return self._of_name[text]
        if re.fullmatch(r"[0-9]{1,9}", text):
            return (int(text),)
        titled = re.fullmatch(r"(.+) \(([0-9]{1,9})\)", text)
        if titled is None:
            return ()
        index = int(titled[2])
        if index < len(self._entries) and index not in self._of_name.get(titled[1], ()):
            raise InvalidInput(
                f"class is {quoted(label)}, but {index} is {self.title(index)}; give the name or "
                "the index alone"
            )
        return (index,)

    def _suggest(self, nearest: Iterable[int]) -> str:
        titles = ", ".join(self.title(index) for index in nearest)
        return f"the nearest that are known: {titles}" if titles else "no class is known"

    def _nearest_kin(self, index: int) -> list[int]:
        """Closest indices: ImageNet is ordered by WordNet, so that neighbours are alike."""
        return sorted(self.indices, key=lambda i: (abs(i - index), i))[:SUGGESTIONS]

    def _nearest_names(self, label: str) -> list[int]:
        """Closest spellings; a name that contains every word asked for ("retriever") comes before
        one that only looks alike.
        """
        text = _normal(label)[:64]  # comparing takes time in proportion to the length
        words = set(text.split())
        matcher = SequenceMatcher(None, b=text, autojunk=False)

        def closeness(index: int) -> float:
            best = 0.0
            for name in map(_normal, self._entries[index].synonyms):
                matcher.set_seq1(name)
                best = max(best, matcher.ratio() + (words <= set(name.split())))
            return best

        return sorted(self.indices, key=closeness, reverse=True)[:SUGGESTIONS]


def composed(text: str) -> str:
    """``text`` with its accents as one character each (NFC), as macOS does not write them."""
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=8)
def _by_name(entries: tuple[Class, ...]) -> dict[str, tuple[int, ...]]:
    """Every normalised name, wnid and whole list of synonyms -> the indices of its classes."""
    table: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        names = (entry.wnid, entry.name, *entry.synonyms, ", ".join(entry.synonyms))
        for key in {_normal(name) for name in names if name}:
            table[key] = (*table.get(key, ()), entry.index)
    return table


def _unnamed(index: int) -> str:
    return f"class {index}"


def _spelt(text: str) -> str:
    return composed(" ".join(text.split()))


def _normal(text: str) -> str:
    return composed(_spelt(text).casefold())


def _integer(label: Any) -> int:
    try:
        number = operator.index(label)
    except TypeError:
        number = None
    if number is None or isinstance(label, bool) or "bool" in str(getattr(label, "dtype", "")):
        raise InvalidInput(f"class is {quoted(label)}; it must be a name or an index")
    return number
