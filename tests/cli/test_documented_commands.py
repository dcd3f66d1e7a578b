"""The commands that the documentation shows are commands: every name, option and argument."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from aim.cli import app

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("README.md", "docs/training.md", "docs/performance.md", "checkpoints/README.md")


def shown(page: str) -> list[str]:
    """Every ``aim`` command of a page, in blocks and in sentences."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(
        r"`(python -m aim [^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    commands = [line[line.index("-m aim ") + 7 :] for line in lines if "-m aim " in line]
    # one that a shell is given ends with its quotes
    return [c.removesuffix("'") if c.count("'") % 2 else c for c in commands]


COMMANDS = [(page, command) for page in PAGES for command in shown(page)]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_can_be_given(page: str, command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if word not in ("...", "--help")]
    found = typer.main.get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words.pop(0)]  # type: ignore[attr-defined]
    # a command that stands for what it does, or is shown in part, need not be whole
    in_part = "..." in command or "--help" in command or not words
    found.make_context("aim", words, resilient_parsing=in_part)


def test_there_are_such_commands() -> None:
    assert len(COMMANDS) > 20
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/training.md"}
