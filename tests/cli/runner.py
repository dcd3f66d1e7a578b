"""Runs commands in this process."""

from __future__ import annotations

import pytest

from aim.cli import main


class Cli:
    """Runs commands; ``out`` and ``err`` are what the last one printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        """The exit code."""
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        return int(ended.value.code or 0)
