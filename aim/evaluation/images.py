"""Sets of images in batches, never whole, and the ``.npz`` of ADM's evaluator."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.files import replacing

IMAGES, LABELS = "arr_0", "arr_1"  # ADM's names
THREADS = 8  # that decode or write pictures


def batched(images: Iterable[np.ndarray], batch: int) -> Iterator[Tensor]:
    """Images (H, W, 3) uint8, all of one size, as batches (B, 3, H, W)."""
    some: list[np.ndarray] = []
    for image in images:
        some.append(image)
        if len(some) == batch:
            yield _to_tensor(np.stack(some))
            some = []
    if some:
        yield _to_tensor(np.stack(some))


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def write_npz(path: Path, images: Iterable[np.ndarray], labels: Sequence[int], size: int) -> None:
    """ADM's file: arr_0 (N, size, size, 3) uint8, and arr_1 (N,) int64, the class of each. Written
    whole or not at all.

    InvalidInput where it cannot be written, or for another number or size of images.
    """
    shape, count = (size, size, 3), 0
    with replacing(path) as unfinished:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(f"{IMAGES}.npy", "w", force_zip64=True) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
                np.lib.format.write_array_header_1_0(file, header)
                for count, image in enumerate(images, 1):
                    if image.shape != shape or image.dtype != np.uint8:
                        raise InvalidInput(
                            f"image {count - 1} is {image.dtype} {image.shape}; it must be uint8 "
                            f"{shape}"
                        )
                    file.write(np.ascontiguousarray(image).data)
            with archive.open(f"{LABELS}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(labels, np.int64))
        if count != len(labels):
            raise InvalidInput(f"there are {count} images and {len(labels)} labels")


def npz_shape(path: Path) -> tuple[int, int, int]:
    """Number, height and width of the images in an ADM file. InvalidInput if it holds none, or is
    not such a file.
    """
    with _images_of(path) as (shape, _):
        return shape


def read_npz(path: Path, batch: int) -> Iterator[Tensor]:
    """The images of an ADM file in batches (B, 3, H, W) uint8. Errors as of ``npz_shape``, and
    InvalidInput if it is cut short.
    """
    with _images_of(path) as (shape, file):
        count, height, width = shape
        for i in range(0, count, batch):
            some = min(batch, count - i)
            content = file.read(some * height * width * 3)
            if len(content) != some * height * width * 3:
                raise InvalidInput(
                    f"{path} ends before image {i + some} of {count}; it may be cut short"
                )
            yield _to_tensor(
                np.frombuffer(bytearray(content), np.uint8).reshape(some, height, width, 3)
            )


def has_images(path: Path) -> bool:
    """Whether a .npz file holds images. InvalidInput for another file."""
    with _reading(path), zipfile.ZipFile(path) as archive:
        return f"{IMAGES}.npy" in archive.namelist()


def npz_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays ``names`` that a .npz file holds, whole. InvalidInput for another file;
    nothing in it is run.
    """
    # np.load takes other files, too
    with _reading(path), zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names if name in file.files}


@contextmanager
def _images_of(path: Path) -> Iterator[tuple[tuple[int, int, int], IO[bytes]]]:
    """(N, H, W) of the images in an ADM file, and their bytes to read."""
    with _reading(path), zipfile.ZipFile(path) as archive:
        if f"{IMAGES}.npy" not in archive.namelist():
            raise InvalidInput(
                f"{path} holds no {IMAGES}; images must be in an array of that name, (N, H, W, 3) "
                "uint8"
            )
        with archive.open(f"{IMAGES}.npy") as file:
            shape, fortran, dtype = _header(file)
            if (
                dtype != np.uint8
                or fortran
                or len(shape) != 4
                or shape[3] != 3
                or not math.prod(shape)
            ):
                raise InvalidInput(
                    f"{IMAGES} of {path} is {dtype} {shape}; it must be uint8 (N, H, W, 3) in C "
                    "order"
                )
            yield (shape[0], shape[1], shape[2]), file


def _header(file: IO[bytes]) -> tuple[Any, bool, Any]:
    """Shape, whether in Fortran's order, and dtype of an array file; what follows are its bytes."""
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InvalidInput:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise InvalidInput(
            f"{path} cannot be read as a .npz file ({error}); give one of ADM's evaluator"
        ) from error
