"""The command line, ``python -m aim``: a file a command, put together here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from aim._version import __version__
from aim.cli import bench, demo, evaluate, export, info, sample, tokenize, train
from aim.errors import AimError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    sample.sample,
    demo.demo,
    info.info,
    export.export,
    export.push,
    tokenize.tokenize,
):
    app.command()(command)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(bench.app, name="bench")
app.add_typer(train.app, name="train")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process. 2 is a bad input or a model that cannot be had, told
    in one line.
    """
    try:
        app(arguments, prog_name="aim")
    except AimError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _version(asked: bool) -> None:
    if asked:
        print(f"aim {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Draw images code by code with a Mamba-2 model."""
