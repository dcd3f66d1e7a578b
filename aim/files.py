"""Files written whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aim.errors import AimError, InvalidInput


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """An empty file beside ``path``, for the block to write. It takes the place of ``path`` when
    the block is through, and vanishes when that fails: a reader sees the old file or the new one,
    after a power cut, too. Folders are made.

    InvalidInput where it cannot be written, as on a full disk. With ``new``, FileExistsError if
    ``path`` is there.
    """
    # not of the whole name, which may be as long as a name can be
    unfinished = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    claimed = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if new:
            path.touch(exist_ok=False)
            claimed = True
        unfinished.touch()
        mode = unfinished.stat().st_mode  # by the user's mask; some libraries have one of their own
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.chmod(mode)
        os.replace(unfinished, path)
        claimed = False
    except Exception as error:
        # torch.save raises a RuntimeError in the middle of it
        reason = error if isinstance(error, OSError) else error.__context__
        taken = isinstance(error, FileExistsError) and os.path.lexists(path)
        if isinstance(error, AimError) or not isinstance(reason, OSError) or (new and taken):
            raise
        raise InvalidInput(
            f"cannot write {path}: {reason.strerror or reason}; make room, or choose another folder"
        ) from error
    finally:
        if claimed:
            path.unlink(missing_ok=True)
        if unfinished.parent.is_dir():
            unfinished.unlink(missing_ok=True)


def replace(path: Path, content: bytes | str, *, new: bool = False) -> None:
    """Write ``content``, a text as UTF-8, to ``path``; see ``replacing``."""
    with replacing(path, new=new) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what a process that was killed while it wrote ``name``, or any file, left in
    ``folder``; for whoever alone writes it.
    """
    for path in folder.glob(f".{name[:40]}.{'[0-9a-f]' * 8}.tmp"):
        path.unlink(missing_ok=True)
