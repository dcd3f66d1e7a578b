"""A file is written whole or not at all, by whichever way it is written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aim.errors import InvalidInput
from aim.files import replace, replacing

# what each writer of the package makes, about 400 kB
WRITERS = {
    "bytes": "replace(path, bytes(400_000))",
    "text": 'replace(path, "a" * 400_000)',
    "safetensors": "write(path, {'a': torch.ones(100_000)}, {})",
    "npz": "write_npz(path, np.ones((2, 260, 260, 3), np.uint8), [0, 1], 260)",
    "state": "torch_save(path)",
}
PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from aim.checkpoint.weights import write
from aim.errors import InvalidInput
from aim.evaluation.images import write_npz
from aim.files import replace, replacing

def torch_save(path):
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        torch.save({"a": torch.ones(100_000)}, file)

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for how in sys.argv[2:]:
    try:
        eval(how)
        print("written")
    except InvalidInput as error:
        print(error)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("old")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), *WRITERS.values()],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert len(lines) == len(WRITERS), run.stderr
    for line in lines:
        assert line.startswith(f"cannot write {path}: ")
        assert "File too large" in line
        assert line.endswith("; make room, or choose another folder")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_when_the_file_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "old"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    for name in ("old", "new"):
        with pytest.raises(InvalidInput, match=f"{name}: No space left on device; make room"):
            replace(tmp_path / name, "new")
    with pytest.raises(InvalidInput, match="No space"):
        replace(tmp_path / "newer", "new", new=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    replace(path, "old")
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_what_goes_wrong_in_between_is_told_as_it_is(tmp_path: Path) -> None:
    for error in (KeyError("a bug"), InvalidInput("an image"), KeyboardInterrupt()):
        with pytest.raises(type(error)), replacing(tmp_path / "file") as unfinished:
            unfinished.write_text("half")
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_takes_the_place_of_none(tmp_path: Path) -> None:
    replace(tmp_path / "file", "first", new=True)
    with pytest.raises(FileExistsError):
        replace(tmp_path / "file", "second", new=True)
    assert (tmp_path / "file").read_text() == "first"
    with pytest.raises(InvalidInput, match=r"cannot write .*first: "):
        replace(tmp_path / "file" / "first", "third", new=True)


def test_the_mode_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file") as unfinished:
        unfinished.unlink()  # as a library may that makes the file anew
        unfinished.touch(0o600)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    replace(path, "text")
    assert path.read_text() == "text"


@pytest.mark.parametrize("content", ["ümlaut\n", b"\r\n\0"])
def test_content_is_written_as_it_is(tmp_path: Path, content: str | bytes) -> None:
    replace(tmp_path / "file", content)
    wanted = content.encode() if isinstance(content, str) else content
    assert (tmp_path / "file").read_bytes() == wanted
