"""Whether a set of images is whole, balanced, and what the model draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from aim.errors import AimError
from aim.evaluation.samples import PICTURES, SampleSet
from aim.images import read

REDRAWN = 4  # images that the self-check draws again
# of a level: how far a rounded pixel may be from its exact value, and what decoding twice may add
HALF = 0.51


def check(images: SampleSet) -> dict[str, Any]:
    """Count the files, their classes and their pixels. AimError says what is wrong.

    ``images``; ``fewest`` and ``most`` of a class; and of ``redrawn`` images, drawn again, how
    many are ``equal`` to their files, and how far the files' pixels are from ``127.5 (x + 1)``,
    x being what the decoder gives, cut off at -1 and 1: ``rounding_mean``, which is -0.5 for
    pixels that were cut instead of rounded, and ``rounding_most``. In bfloat16, where a picture
    may depend on its batch, the last three are only told.
    """
    good = set(range(images.count)) - set(images.missing(range(images.count)))
    if len(good) < images.count:
        raise AimError(
            f"{images.folder} holds {len(good)} of {images.count} images; the same command draws "
            "the others"
        )
    surplus = {path.name for path in (images.folder / PICTURES).glob("*.png")} - {
        images.path(i).name for i in good
    }
    if surplus:
        raise AimError(
            f"{images.folder / PICTURES} holds {min(surplus)}, which is not of this set; remove it"
        )
    seen = Counter(read.read_parameters(images.path(i))["class"] for i in range(images.count))
    counts = [seen[index] for index in images.asked]
    if sum(counts) != images.count or max(counts) - min(counts) > 1:
        raise AimError(
            f"classes are not balanced: {min(counts)} images of one and {max(counts)} of "
            "another; draw into another folder"
        )
    pixels = _check_pixels(
        images, sorted({i * (images.count - 1) // (REDRAWN - 1) for i in range(REDRAWN)})
    )
    if images.pipe.dtype == torch.float32 and (
        pixels["equal"] < pixels["redrawn"] or pixels["rounding_most"] > HALF
    ):
        raise AimError(
            f"drawn again, images of {images.folder} differ from their files ({pixels}); draw "
            "into another folder"
        )
    return {"images": images.count, "fewest": min(counts), "most": max(counts), **pixels}


def _check_pixels(images: SampleSet, indices: Sequence[int]) -> dict[str, Any]:
    """Draw images again, decode them once as pixels and once as floating point, and compare
    with their files.
    """
    drawn = list(images.codes(indices))
    equal, errors = 0, []
    for (i, codes), pixels in zip(
        drawn,
        images.decoder.images(codes for _, codes in drawn),
        strict=True,
    ):
        if i is None:
            continue
        file = images.there(i)
        with torch.inference_mode():
            decoded = images.decoder.exact(torch.from_numpy(codes)[None].to(images.pipe.device))[0]
        exact = 127.5 * (decoded.permute(1, 2, 0).double().cpu().numpy().clip(-1, 1) + 1)
        errors.append(file - exact)
        equal += bool((pixels == file).all())
    error = np.stack(errors)
    return {
        "redrawn": len(errors),
        "equal": equal,
        "rounding_mean": float(error.mean()),
        "rounding_most": float(np.abs(error).max()),
    }
