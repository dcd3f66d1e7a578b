"""What the drawn images are compared with: sources of images or an ADM ``.npz``, seen once by a
network and kept in a cache.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.checkpoint.weights import fingerprint
from aim.errors import InvalidInput
from aim.evaluation.images import (
    IMAGES,
    batched,
    has_images,
    npz_arrays,
    npz_shape,
    read_npz,
)
from aim.evaluation.metrics import Statistics
from aim.evaluation.observe import Features, Observed, likeliest, observe
from aim.files import replacing
from aim.training.data.decoding import decoded
from aim.training.data.sources import Images, open_images

log = logging.getLogger("aim")

CACHE = ".aim-statistics"  # folder beside a reference
# images that precision, recall and KID take of a reference, as many as ADM's files hold
MOST = 10_000
# ADM's names; the latter two of the spatial features
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
NAMES = (*STATISTICS, "images", "features", "asked")  # of a file in the cache


class Reference(NamedTuple):
    """Real images, as a network sees them."""

    statistics: Statistics
    spatial: Statistics | None
    # (M, F) float32, of at most MOST images; None where only statistics are known
    features: Tensor | None
    # the share whose likeliest class is their own; None where one is not known
    asked: float | None = None


class Asked(NamedTuple):
    """The classes that are compared."""

    keys: Sequence[str] = ()  # what folders of them are called
    columns: Sequence[int] = ()  # of what the network says of classes; empty: it knows others
    own: bool = False  # numbers in tar shards are no ImageNet classes


def load_reference(
    sources: Sequence[str | Path],
    features: Features,
    size: int,
    batch: int = 64,
    cache: Path | None = None,
    asked: Asked = Asked(),  # noqa: B008, it is immutable
) -> Reference:
    """The reference at ``sources`` as ``features`` see it, from the cache where it holds that;
    ``size`` is of the drawn images, pixels.

    ``sources`` are what ``open_images`` takes, or one .npz file with images ``arr_0``, or with
    statistics ``mu`` and ``sigma``, perhaps ``mu_s`` and ``sigma_s``, or both. Of images those of
    the classes ``asked`` are taken, all if none has such a class; their middles are cut square and
    scaled to ``size``, or by area to what the network reduces all to. Statistics in a file are
    taken where they have as many numbers as ``features`` has; else they are computed from its
    images. The cache is ``cache``, or a folder beside the reference; a line in the log says if it
    cannot be written, and which images cannot be read. InvalidInput for a source that will not do.
    """
    first = Path(sources[0])
    packed = [source for source in sources if Path(source).suffix == ".npz"]
    if packed and len(sources) > 1:
        raise InvalidInput(f"{packed[0]} is a reference by itself; give it alone")
    if packed and not first.exists():
        raise InvalidInput(f"there is no reference {first}; give images or a .npz file")
    images = None if packed else open_images(sources, asked.own, labels=False)
    side = min(size, features.side) if features.side else size
    key = _key(sources, images, f"{features.name} {side} {asked}")
    kept = (cache or first.resolve().parent / CACHE) / f"{first.stem}-{features.name}-{key}.npz"
    if (found := _read(kept)) is not None:
        return found
    made = (
        _from_npz(first, features, size, batch)
        if images is None
        else _from_images(images, features, side, batch, asked)
    )
    _write(kept, made)
    return made


def _from_images(
    images: Images, features: Features, side: int, batch: int, asked: Asked
) -> Reference:
    place = {key: i for i, key in enumerate(asked.keys)}
    known = images.keys()
    labels = [place.get(key) for key in known]
    chosen = [i for i, label in enumerate(labels) if label is not None]
    numbers = chosen or list(range(len(images)))
    if len(chosen) < len(images) and asked.keys and any(known):
        what = "of other classes are left out" if chosen else "are of no class that is asked for"
        log.warning("Reference: %d of %d images %s", len(images) - len(chosen), len(images), what)
    bad: list[str] = []
    seen: list[int] = []

    def pixels() -> Iterator[np.ndarray]:
        for image in decoded(images, numbers, side, bad, area=features.side > 0):
            seen.append(image.item)
            yield image.pixels
        if not seen:
            raise InvalidInput(f"none of the {len(bad)} images can be read; the first is {bad[0]}")

    observed = observe(features, batched(pixels(), batch))
    if bad:
        log.warning("Reference: %d images cannot be read and are left out", len(bad))
    own = [label for i in seen if (label := labels[i]) is not None]
    share = likeliest(observed.probabilities, asked.columns, own) if chosen else None
    return _seen(observed)._replace(asked=share)


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
    """With the features of at most MOST images. InvalidInput for a single image."""
    if observed.statistics is None:
        raise InvalidInput("the reference has 1 image; a covariance needs at least 2 images")
    return Reference(observed.statistics, observed.spatial, some(observed.features))


def some(features: Tensor) -> Tensor:
    """At most MOST rows, evenly spaced."""
    count = len(features)
    return features[torch.arange(min(count, MOST)) * count // min(count, MOST)]


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


def _key(sources: Sequence[str | Path], images: Images | None, how: str) -> str:
    """12 hex digits that change with the reference, of a folder with the names, lengths and dates
    of its images, and with how they are seen.
    """
    digest = hashlib.sha256(f"{how} {images.fingerprint() if images else ''}".encode())
    for part in [] if images is None else images.parts:
        if (folder := Path(part.where)).is_dir():
            for name in part.names:
                status = (folder / name).stat()
                digest.update(f"\n{status.st_size} {status.st_mtime_ns}".encode())
    files = [part.where for part in images.parts] if images else sources
    for path in map(Path, files):
        if path.is_file():
            digest.update(f"\n{path.stat().st_mtime_ns} {fingerprint(path)}".encode())
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
    share = float(stored["asked"]) if "asked" in stored else None
    return Reference(
        given._replace(images=count), spatial and spatial._replace(images=count), vectors, share
    )


def _write(kept: Path, reference: Reference) -> None:
    """Keep it, whole or not at all; a line in the log if that cannot be."""
    mean, covariance, images = reference.statistics
    arrays: dict[str, Any] = {"mu": mean, "sigma": covariance, "images": torch.tensor(images)}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean, "sigma_s": reference.spatial.covariance}
    if reference.features is not None:
        arrays["features"] = reference.features
    if reference.asked is not None:
        arrays["asked"] = torch.tensor(reference.asked, dtype=torch.float64)
    try:
        with replacing(kept) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)
    except InvalidInput as error:
        log.warning(
            "Statistics of the reference cannot be kept (%s); give another folder, --cache", error
        )
