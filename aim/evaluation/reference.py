"""What the drawn images are compared with: a folder of pictures or an ADM ``.npz``, seen once by a
network and kept in a cache.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.checkpoint.weights import fingerprint
from aim.errors import InvalidInput
from aim.evaluation.features import Features, Observed, observe
from aim.evaluation.images import (
    IMAGES,
    has_images,
    list_pictures,
    npz_arrays,
    npz_shape,
    read_npz,
    read_pictures,
)
from aim.evaluation.metrics import Statistics
from aim.files import replacing

log = logging.getLogger("aim")

CACHE = ".aim-statistics"  # folder beside a reference
MOST = 10_000  # images that precision and recall take of a reference, as many as ADM's files hold
# ADM's names; the latter two of the spatial features
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
NAMES = (*STATISTICS, "images", "features")  # of a file in the cache


class Reference(NamedTuple):
    """Real images, as a network sees them."""

    statistics: Statistics
    spatial: Statistics | None
    # (M, F) float32, of at most MOST images; None where only statistics are known
    features: Tensor | None


def load_reference(
    path: Path, features: Features, size: int, batch: int = 64, cache: Path | None = None
) -> Reference:
    """The reference at ``path`` as ``features`` see it, from the cache where it holds that;
    ``size`` is of the drawn images, pixels.

    ``path`` is a folder of pictures, whose middles are cut square and scaled to ``size``, or a .npz
    file with images ``arr_0``, or with statistics ``mu`` and ``sigma``, perhaps ``mu_s`` and
    ``sigma_s``, or both. Statistics in the file are taken where they have as many numbers as
    ``features`` has; else they are computed from its images. The cache is ``cache``, or a folder
    beside the reference; a line in the log says if it cannot be written. InvalidInput for a file or
    folder that will not do.
    """
    if not path.exists():
        raise InvalidInput(
            f"there is no reference {path}; give a folder of pictures or a .npz file"
        )
    kept = (
        cache or path.resolve().parent / CACHE
    ) / f"{path.stem}-{features.name}-{_key(path, features.name, size)}.npz"
    if (found := _read(kept)) is not None:
        return found
    made = (
        _from_folder(path, features, size, batch)
        if path.is_dir()
        else _from_npz(path, features, size, batch)
    )
    _write(kept, made)
    return made


def _from_folder(path: Path, features: Features, size: int, batch: int) -> Reference:
    return _seen(observe(features, read_pictures(list_pictures(path), size, batch)))


def _from_npz(path: Path, features: Features, size: int, batch: int) -> Reference:
    width = features(torch.zeros(1, 3, size, size, dtype=torch.uint8)).features.shape[1]
    stored = npz_arrays(path, STATISTICS)
    given, spatial = (_given(path, stored, *names) for names in (STATISTICS[:2], STATISTICS[2:]))
    fits = given is not None and len(given.mean) == width
    if not has_images(path):
        if given is None or not fits:
            found = (
                "no statistics, mu and sigma"
                if given is None
                else f"statistics of {len(given.mean)} numbers, not {width}"
            )
            raise InvalidInput(
                f"{path} holds no images, {IMAGES}, and {found}; take another reference for "
                f"{features.name}"
            )
        return Reference(given, spatial, None)
    _, height, across = npz_shape(path)
    if (height, across) != (size, size):
        raise InvalidInput(
            f"the images of {path} are {across}x{height}, those that are drawn {size}x{size}; take "
            "a reference of that size"
        )
    seen = _seen(observe(features, read_npz(path, batch)))
    return Reference(given, spatial, seen.features) if given is not None and fits else seen


def _seen(observed: Observed) -> Reference:
    """With the features of at most MOST images, evenly spaced."""
    count = len(observed.features)
    kept = torch.arange(min(count, MOST)) * count // min(count, MOST)
    return Reference(observed.statistics, observed.spatial, observed.features[kept])


def _given(
    path: Path, stored: dict[str, np.ndarray], mean: str, covariance: str
) -> Statistics | None:
    """Statistics of these names in a file, None if it has none. InvalidInput if they are no mean
    and covariance.
    """
    if mean not in stored or covariance not in stored:
        return None
    m, c = stored[mean], stored[covariance]
    if (
        m.ndim != 1
        or c.shape != (len(m), len(m))
        or not all(np.issubdtype(part.dtype, np.floating) for part in (m, c))
    ):
        found = f"{m.dtype} {m.shape} and {c.dtype} {c.shape}"
        raise InvalidInput(
            f"{mean} and {covariance} of {path} are {found}; they must be floating point, (F,) and "
            "(F, F)"
        )
    return Statistics(
        torch.from_numpy(m.astype(np.float64)), torch.from_numpy(c.astype(np.float64)), 0
    )


def _key(path: Path, features: str, size: int) -> str:
    """12 hex digits that change with the reference, of a folder with the names, lengths and dates
    of its pictures.
    """
    digest = hashlib.sha256(f"{features} {size}".encode())
    for part in list_pictures(path) if path.is_dir() else [path]:
        status = part.stat()
        content = "" if path.is_dir() else fingerprint(part)
        digest.update(
            f"\n{part.relative_to(path)} {status.st_size} {status.st_mtime_ns} {content}".encode()
        )
    return digest.hexdigest()[:12]


def _read(kept: Path) -> Reference | None:
    """What ``_write`` kept; None if it is not there or damaged."""
    try:
        stored = npz_arrays(kept, NAMES)
        given, spatial = (
            _given(kept, stored, *names) for names in (STATISTICS[:2], STATISTICS[2:])
        )
    except InvalidInput:
        return None
    if given is None or "images" not in stored:
        return None
    count = int(stored["images"])
    vectors = torch.from_numpy(stored["features"]) if "features" in stored else None
    return Reference(
        given._replace(images=count), spatial and spatial._replace(images=count), vectors
    )


def _write(kept: Path, reference: Reference) -> None:
    """Keep it, whole or not at all; a line in the log if that cannot be."""
    mean, covariance, images = reference.statistics
    arrays: dict[str, Any] = {"mu": mean, "sigma": covariance, "images": torch.tensor(images)}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean, "sigma_s": reference.spatial.covariance}
    if reference.features is not None:
        arrays["features"] = reference.features
    try:
        with replacing(kept) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)
    except InvalidInput as error:
        log.warning(
            "Statistics of the reference cannot be kept (%s); give another folder, --cache", error
        )
