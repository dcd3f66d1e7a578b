"""Where a measurement is told: on the screen, and in files that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aim import files
from aim.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table


class Outputs:
    """Files for a result, None for none. InvalidInput if one cannot be written: better before the
    measurement than after it.
    """

    def __init__(self, json: Path | None, csv: Path | None = None) -> None:
        self._json, self._csv = json, csv
        for option, path in (("--json", json), ("--csv", csv)):
            if path is None:
                continue
            folder = path.resolve().parent
            wrong = "" if folder.is_dir() else f"there is no folder {folder}"
            if wrong := "it is a folder" if path.is_dir() else wrong:
                raise InvalidInput(
                    f"cannot write {path}: {wrong}; choose another file with {option}"
                )

    def finish(
        self, table: Table, line: str, notes: Sequence[str] = (), csv: str = "", full: str = ""
    ) -> None:
        """Print ``table``, ``notes`` and ``line``; write what was asked for, in place of the line
        perhaps a ``full`` one.
        """
        from rich.console import Console

        Console().print(table)
        print(*notes, line, sep="\n")
        for path, text in ((self._json, (full or line) + "\n"), (self._csv, csv)):
            if path is not None:
                files.replace(path, text)
