"""Safetensors files, one or several with an index, read as one table of tensors.

Names are bare: what wrappers of training put into them (``module.``, ``_orig_mod.``,
``_fsdp_wrapped_module.``) is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from aim.checkpoint.config_json import MOST_TEXT, parse_json
from aim.errors import CheckpointError

INDEX = ".index.json"  # behind the name of a file that is there in parts
POINTER = b"version https://git-lfs.github.com/spec/"
WRAPPER = "module."  # DistributedDataParallel's, in front of all names
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.")  # torch.compile's and FSDP's, anywhere


def bare(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put into them -> names as they are in ``path``. CheckpointError
    where two of them become one.
    """
    stored = list(names)
    plain = stored
    while True:
        before = plain
        for part in WRAPPERS:
            plain = [name.replace(part, "") for name in plain]
        if plain and all(name.startswith(WRAPPER) for name in plain):
            plain = [name.removeprefix(WRAPPER) for name in plain]
        if plain == before:
            break
    twice = [name for name, count in Counter(plain).items() if count > 1]
    if twice:
        raise CheckpointError(f"{path} holds {twice[0]} twice, once with a prefix of training")
    return dict(zip(plain, stored, strict=True))


class Tensors:
    """What one or several safetensors files hold, by bare names."""

    def __init__(self, path: Path, files: Mapping[Path, Any]) -> None:
        where = {name: file for file in files.values() for name in file.keys()}  # noqa: SIM118, not a dict
        self._where = {name: (stored, where[stored]) for name, stored in bare(path, where).items()}
        self._path, self._files = path, list(files.values())

    def keys(self) -> list[str]:
        """Names of all tensors."""
        return list(self._where)

    def get_slice(self, name: str) -> Any:
        """A tensor that is not read yet: its shape and dtype."""
        stored, file = self._place(name)
        return file.get_slice(stored)

    def get_tensor(self, name: str) -> Tensor:
        """A tensor."""
        stored, file = self._place(name)
        return file.get_tensor(stored)

    def metadata(self) -> dict[str, str]:
        """The texts in the first file."""
        return dict(self._files[0].metadata() or {})

    def _place(self, name: str) -> tuple[str, Any]:
        if name not in self._where:
            raise CheckpointError(f"{self._path} holds no tensor {name}; it may be damaged")
        return self._where[name]


def whole(path: Path) -> Path:
    """The name of the file that an index says the parts of; any other path as it is."""
    return path.with_name(path.name.removesuffix(INDEX))


def is_there(path: Path) -> bool:
    """Whether there is a safetensors file ``path``, whole or in parts."""
    return path.is_file() or path.with_name(path.name + INDEX).is_file()


def parts(path: Path) -> list[Path]:
    """The files that make ``path``: itself, or those that the index beside it names, which may not
    be there. CheckpointError for an index that is none.
    """
    index = path.with_name(path.name + INDEX)
    return sorted(set(_index(index).values())) if index.is_file() and not path.is_file() else [path]


def _index(index: Path) -> dict[str, Path]:
    """The file of each tensor; only files in the same folder."""
    refuse_pointer(index)
    try:
        with index.open(encoding="utf-8") as file:
            names = parse_json(file.read(MOST_TEXT + 1), index).get("weight_map")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{index} cannot be read: {error}") from error
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} has no weight_map of tensors and their files")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise CheckpointError(f"{index} names {name!r}, which is no file in its folder")
    return {tensor: index.with_name(name) for tensor, name in names.items()}


@contextmanager
def opened(path: Path) -> Iterator[Tensors]:
    """The safetensors file at ``path``, or its parts by the index beside it; CheckpointError where
    it cannot be read as such, now or later, or where parts and index differ.
    """
    with ExitStack() as stack:
        files = {part: stack.enter_context(_one(part)) for part in parts(path)}
        if list(files) != [path]:
            _check_parts(path.with_name(path.name + INDEX), files)
        yield Tensors(path, files)


def _check_parts(index: Path, files: Mapping[Path, Any]) -> None:
    said = {(name, part) for name, part in _index(index).items()}
    there = {(name, part) for part, file in files.items() for name in file.keys()}  # noqa: SIM118
    for name, part in sorted(said ^ there):
        lacks, other = ("does not hold", "names") if (name, part) in said else ("holds", "does not")
        raise CheckpointError(f"{part} {lacks} {name}, which {index.name} {other} there")


@contextmanager
def _one(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a safetensors file ({error}); it may be cut short or of "
            "another format"
        ) from error


def refuse_pointer(path: Path) -> None:
    """CheckpointError for a file that git-lfs left in place of the one that it keeps elsewhere."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if start == POINTER:
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the file that it stands for; run `git lfs pull` in "
            "its repository, or download the file itself"
        )
