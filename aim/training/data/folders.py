"""Folders of images and zip files of them as sources: which images there are, and the class of
each. What is left out or guessed is told.
"""

from __future__ import annotations

import logging
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aim.classes import composed, imagenet
from aim.errors import InvalidInput
from aim.training.data.files import Part, is_hidden, is_image, list_files, listing

ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet's: what class each validation image is of
NESTED = "images"  # between class and image, in Tiny ImageNet
SPLITS = ("train", "val", "valid", "validation", "test")
UTF8 = 0x800  # of a zip member's flags: its name is UTF-8

log = logging.getLogger("aim")


def open_folder(root: Path, labels: bool) -> Part:
    """Every image below a folder; see ``_listed``."""
    return _listed(root, list_files(root), lambda name: (root / name).read_bytes(), labels)


def open_zip(path: Path, labels: bool) -> Part:
    """Every image in a zip file; see ``_listed``."""
    with listing(path):
        archive = zipfile.ZipFile(path)
        infos = [info for info in archive.infolist() if not info.is_dir()]
    lock, process = threading.Lock(), os.getpid()
    called = dict(zip(_names(path, infos), infos, strict=True))

    def read(name: str) -> bytes:
        nonlocal process
        with lock:
            if os.getpid() != process:  # forked, it would share the place in the file
                archive.fp, process = path.open("rb"), os.getpid()
            return archive.read(called[name])

    return _listed(path, list(called), read, labels)


def _names(path: Path, infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """What the members are called, with "/": names that are not marked as UTF-8 are taken for it,
    else for GBK; backslashes of Windows separate folders where nothing else does.
    """
    names, guessed = [], ""
    for info in infos:
        name = info.filename
        if not info.flag_bits & UTF8 and not name.isascii():
            raw = name.encode("cp437")  # as zipfile has read it
            for encoding in ("utf-8", "gb18030"):
                try:
                    name = raw.decode(encoding)
                except UnicodeDecodeError:
                    continue
                guessed = name if encoding != "utf-8" else guessed
                break
            else:
                raise InvalidInput(
                    f"{path} holds {name!r}, whose name is neither UTF-8 nor GBK; pack it again "
                    "with UTF-8 names, or give the folder"
                )
        names.append(name)
    if guessed:
        log.warning("%s: names are not marked as UTF-8 and are read as GBK: %s", path, guessed)
    if names and any("\\" in name for name in names) and not any("/" in name for name in names):
        log.warning("%s: names have backslashes, which are read as folders: %s", path, names[0])
        names = [name.replace("\\", "/") for name in names]
    return names


def _listed(where: Path, names: Sequence[str], read: Callable[[str], bytes], labels: bool) -> Part:
    """Images whose parent folder is their class; ``names`` with "/", of all files. Of a root with
    train/ and other splits train/ alone is taken. Without ``labels`` there need be no class.
    """
    chosen = sorted(filter(is_image, names), key=lambda name: name.split("/"))
    others = [name for name in names if not is_image(name) and not is_hidden(name)]
    splits = {name.split("/")[0] for name in chosen}
    if len(splits) > 1 and "train" in splits and splits <= set(SPLITS):
        left = ", ".join(sorted(splits - {"train"}))
        log.warning("%s: train/ is taken; name %s of it as sources of their own", where, left)
        chosen = [name for name in chosen if name.startswith("train/")]
        others = [name for name in others if name.startswith("train/")]
    loose = next((name for name in chosen if "/" not in name), None)
    if loose and labels:
        raise InvalidInput(f"{where}/{loose} lies in no class folder; expected <class>/{loose}")
    annotated = _annotations(names, read) if labels else {}
    known: dict[str, str] = {}  # one string a class, not one an image
    keys = [known.setdefault(key, key) for key in (_class_of(name, annotated) for name in chosen)]
    _tell(where, others, set(known))
    return Part(str(where), chosen, keys, lambda i: read(chosen[i]))


def _class_of(name: str, annotated: Mapping[str, str]) -> str:
    parts = ["", "", *name.split("/")]
    if parts[-1] in annotated and parts[-2] == NESTED:
        return annotated[parts[-1]]
    nested = parts[-2] == NESTED and parts[-3] in _wnids()
    return composed(parts[-3] if nested else parts[-2])


def _annotations(names: Sequence[str], read: Callable[[str], bytes]) -> dict[str, str]:
    """Tiny ImageNet's classes of validation images, by file name."""
    found: dict[str, str] = {}
    for name in names:
        if name.split("/")[-1] == ANNOTATIONS and not is_hidden(name):
            lines = read(name).decode(errors="replace").splitlines()
            found |= {parts[0]: parts[1] for parts in map(str.split, lines) if len(parts) > 1}
    return found


def _wnids() -> frozenset[str]:
    return frozenset(entry.wnid for entry in imagenet())


def _tell(where: Path, others: Sequence[str], classes: set[str]) -> None:
    """Which files are left out, and of which classes there are no others."""
    if not others:
        return
    kinds = Counter(Path(name).suffix.lower() or Path(name).name for name in others)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    log.warning("%s: %d files are no images that are read: %s", where, len(others), told)
    folders = {composed(name.split("/")[-2]) for name in others if "/" in name}
    beside = {part for name in others for part in name.split("/")[:-2]} | {NESTED, *SPLITS}
    if without := sorted(folders - classes - beside):
        log.warning("%s: without any image: %s", where, ", ".join(without[:20]))
