"""The classes of a model: ImageNet's, with their names, or its own, with names or without."""

from __future__ import annotations

import difflib

import numpy as np

from aim import imagenet
from aim.config import PriorConfig
from aim.errors import InvalidInput

SUGGESTIONS = 3


class Labels:
    """Finds the class that a person means. ``indices`` are ImageNet's, or for a model with classes
    of its own 0 and on.
    """

    def __init__(self, config: PriorConfig, model: str) -> None:
        """Of the model called ``model`` in errors."""
        self.names = config.class_names  # of one's own classes
        self.indices: tuple[int, ...] = config.classes or tuple(range(config.num_classes))
        self.imagenet = bool(config.classes) or (
            not self.names and config.num_classes == len(imagenet.classes())
        )
        self._rows = {index: row for row, index in enumerate(self.indices)}
        self._model = model

    def row(self, index: int) -> int:
        """The model's row of a class, as ``resolve`` returns it."""
        return self._rows[index]

    def resolve(self, label: int | str) -> int:
        """The index of a class given by index or name; InvalidInput names the nearest that the
        model knows.
        """
        if self.imagenet:
            return imagenet.resolve(label, known=self.indices)
        if isinstance(label, (int, np.integer, str)) and not isinstance(label, bool):
            text = str(label).strip()
            called = {
                part.casefold(): index
                for index in self.indices
                for part in (self.title(index), self.name(index))
                if self.names
            }
            if text.casefold() in called:
                return called[text.casefold()]
            if text.isascii() and text.isdigit() and int(text) in self._rows:
                return int(text)
        if self.names:
            near = ", ".join(difflib.get_close_matches(str(label), self.names, SUGGESTIONS, 0.0))
            raise InvalidInput(
                f"class is {label!r}; {self._model} has {len(self.names)} classes of its own, the "
                f"nearest: {near}"
            )
        raise InvalidInput(
            f"class is {label!r}; {self._model} has no ImageNet classes, only its own 0 ... "
            f"{len(self.indices) - 1}"
        )

    def name(self, index: int) -> str:
        """What a class is called: "goldfish"; "class 3" where nobody named it."""
        if self.imagenet:
            return imagenet.classes()[index].name
        return self.names[self._rows[index]] if self.names else f"class {index}"

    def title(self, index: int) -> str:
        """The name with the index, as some share a name: "goldfish (1)"; "class 3" where nobody
        named it.
        """
        if self.imagenet:
            return imagenet.title(index)
        return f"{self.names[self._rows[index]]} ({index})" if self.names else f"class {index}"
