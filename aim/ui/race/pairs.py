"""Who races whom on the page: pairs of one size, with their weights or with random ones."""

from __future__ import annotations

from dataclasses import dataclass

from aim.checks import quoted
from aim.classes import imagenet
from aim.config import MODELS
from aim.errors import InvalidInput
from aim.ui.models import Models

SIZES = ("s", "b", "l", "xl")


@dataclass(frozen=True)
class Pair:
    """An AiM and a Transformer of one size, by name. ``random`` weights draw noise, in the time
    that trained ones take.
    """

    aim: str
    gpt: str
    random: bool

    @property
    def names(self) -> tuple[str, str]:
        """Both."""
        return self.aim, self.gpt

    @property
    def name(self) -> str:
        """What the API calls it: "aim-b/gpt-b", or "aim-b/gpt-b random"."""
        return f"{self.aim}/{self.gpt}{' random' if self.random else ''}"

    @property
    def title(self) -> str:
        """What the page calls it, with where the weights come from."""
        if self.random:
            return f"{self.aim}, {self.gpt} (random weights)"
        megabytes = sum(MODELS[name].download_mb for name in self.names)
        return (
            f"{self.aim}, {self.gpt} "
            f"({f'{megabytes / 1000:.1f} GB download' if megabytes else 'bundled'})"
        )


def offered(models: Models) -> list[Pair]:
    """Every pair, with its own weights where the page has both; with random ones where somebody may
    not want to download those.
    """
    found = []
    for names in ((f"aim-{size}", f"gpt-{size}") for size in SIZES):
        whole = all(name in models.names for name in names)
        if whole:
            found.append(Pair(*names, random=False))
        if not whole or any(MODELS[name].download_mb for name in names):
            found.append(Pair(*names, random=True))
    return found


def find(name: object, models: Models) -> Pair:
    """The pair that is called ``name``; InvalidInput names those there are."""
    pairs = {pair.name: pair for pair in offered(models)}
    if not isinstance(name, str) or name not in pairs:
        raise InvalidInput(
            f"there is no pair {quoted(name)} here; choose one of {', '.join(pairs)}"
        )
    return pairs[name]


def classes(pair: Pair, models: Models) -> list[tuple[str, int]] | None:
    """(title, index) of every class that a pair knows, by name; None where that is only known once
    it is loaded.
    """
    pipe = None if pair.random else models.peek(pair.aim)
    count = MODELS[pair.aim].config.num_classes
    if pipe is not None:
        found = [(pipe.title(index), index) for index in pipe.classes]
    elif count == len(imagenet()):
        found = [(entry.title, entry.index) for entry in imagenet()]
    elif pair.random:
        return [(f"class {index}", index) for index in range(count)]
    else:
        return None
    return sorted(found, key=lambda choice: choice[0].casefold())
