"""Safetensors files and modules: build without weights, compare strictly, assign; errors that name
the tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aim.checkpoint.int8 import SCALE, restored
from aim.checkpoint.shards import opened, parts
from aim.errors import CheckpointError
from aim.files import replacing
from aim.models.prior import Prior
from aim.models.vq.model import VQ

# float16 would lose small weights, integers are no weights but in 8 bits, with scales
STORED_DTYPES = ("F32", "BF16")
SHOWN = 5  # tensors of each kind of difference that an error names

Network = Prior | VQ
M = TypeVar("M", bound=Network)
Form = tuple[tuple[int, ...], str]  # of a stored tensor: its shape, its dtype in safetensors' words


class _NoInitialValues(TorchFunctionMode):
    """Leaves new weights as they are: drawing values that are about to be replaced costs most of a
    load.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else cast(dict[str, Any], kwargs)["tensor"]
        return func(*args, **(kwargs or {}))


def blank(build: Callable[[], M], dtype: torch.dtype = torch.float32) -> M:
    """The module that ``build`` makes, on the meta device: names, shapes and dtypes without
    memory.
    """
    with torch.device("meta"), _NoInitialValues():
        module = build()
        module.to_dtype(dtype)
        return module


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file."""
    with opened(path) as file:
        return file.metadata()


def assign(
    path: Path,
    parts: Mapping[str, nn.Module],
    device: torch.device,
    droppable: Collection[str] = (),
) -> None:
    """Fill blank modules from a file: ``parts`` maps a prefix of the file's names to the module
    behind it.

    Tensors take the modules' dtypes; those in 8 bits are multiplied by their scales in float32
    first. Names in ``droppable`` may be there and are not read.
    CheckpointError otherwise names each difference between the file and the modules, which are left
    as they were.
    """
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys() if name not in droppable}  # noqa: SIM118, not a dict
        stored = {
            name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
        }
        fill(path, parts, stored, file.get_tensor, device)


def fill(
    path: Path,
    parts: Mapping[str, nn.Module],
    stored: Mapping[str, Form],
    read: Callable[[str], Tensor],
    device: torch.device,
    dtypes: Collection[str] = STORED_DTYPES,
) -> None:
    """``assign`` for any kind of file: ``stored`` is the form of each tensor in it, ``read``
    returns one by name.
    """
    expected = {
        prefix + name: tuple(tensor.shape)
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    small = {
        name
        for name, (shape, dtype) in stored.items()
        if dtype == "I8" and len(shape) > 1 and name in expected
    }
    scales = {name + SCALE: expected[name][:1] for name in small}
    _compare(path, stored, expected | scales, dtypes, small)

    def weight(name: str) -> Tensor:
        tensor = read(name)
        return restored(path, name, tensor, read(name + SCALE)) if name in small else tensor

    for prefix, module in parts.items():
        # copies, because a tensor that is still a view of the file would change, or crash, with the
        # file
        loaded = {
            name: weight(prefix + name).to(device, wanted.dtype, copy=prefix + name not in small)
            for name, wanted in module.state_dict().items()
        }
        module.load_state_dict(loaded, strict=True, assign=True)
        module.eval()


def _compare(
    path: Path,
    stored: Mapping[str, Form],
    expected: Mapping[str, tuple[int, ...]],
    allowed: Collection[str],
    small: Collection[str],
) -> None:
    shapes, dtypes = [], []
    for name in sorted(stored.keys() & expected.keys()):
        (shape, dtype), wanted = stored[name], expected[name]
        if shape != wanted:
            shapes.append(f"{name} (is {list(shape)}, must be {list(wanted)})")
        if dtype not in allowed and name not in small:
            dtypes.append(f"{name} ({dtype})")
    differences = {
        "missing": sorted(expected.keys() - stored.keys()),
        "unexpected": sorted(stored.keys() - expected.keys()),
        "misshapen": shapes,
        f"stored neither as {' nor as '.join(allowed)}": dtypes,
    }
    found = [f"{_some(names)} {kind}" for kind, names in differences.items() if names]
    if found:
        raise CheckpointError(f"{path} does not fit its configuration: " + "; ".join(found))


def _some(names: list[str]) -> str:
    noun = "tensor" if len(names) == 1 else "tensors"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{noun} {', '.join(names[:SHOWN])}{more}"


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all; InvalidInput where it cannot be written."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as unfinished:
        try:
            save_file(stored, unfinished, dict(metadata))
        except SafetensorError as error:  # where the disk is full
            raise OSError(str(error)) from error


def content_hash(tensors: Mapping[str, Tensor], also: str) -> str:
    """12 hex digits of SHA-256 over names, dtypes, shapes and every byte of ``tensors``, and the
    text ``also``.
    """
    digest = hashlib.sha256(also.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def fingerprint(path: Path) -> str:
    """12 hex digits that tell a large file, whole or in parts, from others at once."""
    found = [_fingerprint(part) for part in parts(path)]
    return (
        found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()[:12]
    )


def _fingerprint(path: Path, blocks: int = 64, size: int = 4096) -> str:
    """SHA-256 over the length and evenly spaced blocks."""
    length = path.stat().st_size
    digest = hashlib.sha256(str(length).encode())
    with path.open("rb") as file:
        for i in range(blocks):
            file.seek(max(length - size, 0) * i // (blocks - 1))
            digest.update(file.read(size))
    return digest.hexdigest()[:12]
