"""The command line: ``python -m aim sample``, ``demo``, ``bench``, ``train``, ``tokenize`` and
``evaluate``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from aim._version import __version__
from aim.cli import train
from aim.cli.evaluate import evaluate
from aim.cli.tokenize import tokenize
from aim.errors import AimError, InvalidInput
from aim.files import replace
from aim.settings import Settings

if TYPE_CHECKING:
    from aim.pipeline import Pipeline

GIF_FRAMES = 32
SAMPLING = "Sampling"
RACE = "Two models"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(train.app, name="train")
app.command()(tokenize)
app.command()(evaluate)

Model = Annotated[
    str | None,
    typer.Option(
        help="Name (aim-s is bundled), folder, file or hub id. Default: AIM_MODEL or aim-s."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu, cuda, cuda:<number> or mps. Default: AIM_DEVICE or auto."),
]
Dtype = Annotated[
    str | None, typer.Option(help="auto, float32 or bfloat16. Default: AIM_DTYPE or auto.")
]
Backend = Annotated[
    str | None,
    typer.Option(
        help="How a step is computed: auto, fused, mamba-ssm or eager. Default: AIM_BACKEND or auto."
    ),
]


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


@app.command()
def sample(
    classes: Annotated[
        list[str],
        typer.Argument(
            help="ImageNet classes by name or index: goldfish 207 tabby.", show_default=False
        ),
    ],
    count: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 1,
    seed: Annotated[int, typer.Option(help="Image i is drawn with seed + i.")] = 0,
    cfg_scale: Annotated[
        float | None,
        typer.Option(help="Guidance, 1 is none. Default: the model's.", rich_help_panel=SAMPLING),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 takes the likeliest. Default: the model's.", rich_help_panel=SAMPLING),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Likeliest codes kept, 0 is all. Default: the model's.", rich_help_panel=SAMPLING
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Probability kept, 1 is all. Default: the model's.", rich_help_panel=SAMPLING
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("samples"),
    gif: Annotated[bool, typer.Option("--gif", help="Also a GIF of each drawing.")] = False,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also one sheet of all images, a class a row.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite files; otherwise a number is added to the name."),
    ] = False,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
) -> None:
    """Draw images and write them as PNG, each with all its parameters inside."""
    from PIL import Image

    from aim.images import write

    pipe = _load(model, device, dtype, backend)
    labels = [pipe.resolve(label) for label in classes for _ in range(count)]
    params = pipe.params(cfg_scale, temperature, top_k, top_p)
    images: list[Image.Image] = []
    with _progress(
        f"Drawing {len(labels)} {'image' if len(labels) == 1 else 'images'}"
    ) as progress:
        drawing = pipe.draw(labels, seed, params, progress)  # checks its input first
        files = _Files(out, force)
        for i, codes in enumerate(drawing):
            image = pipe.picture(codes)
            stem = write.file_stem(f"{pipe.name} {pipe.title(labels[i])} seed {seed + i}")
            files.write(
                f"{stem}.png", write.png_bytes(image, pipe.parameters(labels[i], seed + i, params))
            )
            if gif:
                files.write(f"{stem}.gif", _gif(pipe, codes))
            images.append(image)
    if sheet:
        titles = [pipe.title(index) for index in labels[::count]]
        picture = write.contact_sheet(images, count, titles, scale=max(1, 128 // images[0].width))
        shared = {
            "model": pipe.name,
            "version": pipe.version,
            "classes": labels[::count],
            "count": count,
            "seed": seed,
        }
        files.write(
            write.file_stem(f"{pipe.name} sheet seed {seed}") + ".png",
            write.png_bytes(picture, shared),
        )


@app.command()
def demo(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on: 0.0.0.0 is all. Default: this machine alone."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Default: GRADIO_SERVER_PORT, or the first free one from 7860."
        ),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also a public address, through Gradio's servers.")
    ] = False,
    mcp: Annotated[
        bool,
        typer.Option(
            "--mcp", help="Also an MCP server, whose tools are the page's endpoints. Or AIM_MCP=1."
        ),
    ] = False,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
) -> None:
    """Open the page."""
    from aim.ui import launch

    settings = Settings.from_env()
    launch(
        model or settings.model,
        device=device or settings.device,
        dtype=dtype or settings.dtype,
        backend=backend or settings.backend,
        host=host,
        port=port,
        share=share,
        mcp=mcp or settings.mcp,
    )


@app.command()
def bench(
    batch: Annotated[str, typer.Option(help="Batch sizes: 1,16,64; a race takes one.")] = "1",
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="Of a named model only its sizes; nothing is downloaded."
        ),
    ] = False,
    backend: Backend = None,
    repeats: Annotated[int, typer.Option(min=1, help="Batches of each size, after warm-up.")] = 5,
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="More batches of a size until this much time went into them; with --scaling, the time for all.",
        ),
    ] = 0.0,
    race: Annotated[
        bool,
        typer.Option("--race", help="Two models by turns at the same work.", rich_help_panel=RACE),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="The other model. Default: of that size, AiM or GPT.", rich_help_panel=RACE
        ),
    ] = None,
    laps: Annotated[
        int, typer.Option(min=5, help="Of each, after warm-up.", rich_help_panel=RACE)
    ] = 5,
    label: Annotated[
        str | None,
        typer.Option("--class", help="By name or index. Default: the first.", rich_help_panel=RACE),
    ] = None,
    gates: Annotated[
        bool,
        typer.Option(
            "--gates",
            help="Also say whether the race was fair and quiet; ends with 1 if not.",
            rich_help_panel=RACE,
        ),
    ] = False,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling",
            help="Two models, random weights, as sequence and batch grow.",
            rich_help_panel=RACE,
        ),
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="How fast the page answers, idle and while people draw.")
    ] = False,
    tokens: Annotated[
        str, typer.Option(help="Codes an image, with --scaling.", rich_help_panel=RACE)
    ] = "256,1024,4096,16384",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the line of JSON to this file.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", help="Also write a race or --scaling as CSV to this file."),
    ] = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Measure how fast a model draws on this machine, or two against each other: a table, then one
    line of JSON.
    """
    from aim.cli.bench import Outputs, Where, measure_one, race_two, scale_two

    settings = Settings.from_env()
    where = Where(
        device or settings.device,
        dtype or settings.dtype,
        backend or settings.backend,
        random_weights,
    )
    if race + scaling + page > 1:
        raise InvalidInput("--race, --scaling and --page are different measurements; choose one")
    if csv_file is not None and not (race or scaling):
        raise InvalidInput(
            f"--csv {csv_file} goes with --race or --scaling; --json takes every result"
        )
    outputs = Outputs(json_file, csv_file)
    name = model or settings.model
    if page:
        from aim.ui import probe

        answers, machine = probe.probe(name, where.device, where.dtype, where.backend)
        Console().print(probe.as_table(answers, machine))
        line = probe.as_json(answers, machine)
        print(line)
        outputs.write(line)
        return
    if race:
        fair = race_two(where, outputs, name, against, batch, laps, label, gates)
        raise typer.Exit(0 if fair else 1)
    if scaling:
        scale_two(where, outputs, name, against, tokens, batch, seconds)
    else:
        measure_one(where, outputs, name, batch, repeats, seconds)


class _Files:
    """Writes to a folder, never over what is there unless forced, and says what it wrote."""

    def __init__(self, folder: Path, force: bool) -> None:
        self._folder, self._force = folder, force
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"cannot write to {folder}: {error.strerror or error}; choose another folder with "
                "--out"
            ) from error

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        number = 2
        while True:
            try:
                replace(path, data, new=not self._force)
            except FileExistsError:
                path = self._folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
                number += 1
            else:
                print(path)
                return


def _load(
    model: str | None, device: str | None, dtype: str | None, backend: str | None
) -> Pipeline:
    settings = Settings.from_env()
    console = Console(stderr=True)
    with console.status("Loading the model ..."):
        from aim.pipeline import load

        return load(
            model or settings.model,
            device or settings.device,
            dtype or settings.dtype,
            backend or settings.backend,
        )


@contextmanager
def _progress(title: str) -> Iterator[Any]:
    """A progress bar on standard error, and the function that moves it: (done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    redirect = sys.stdout.isatty()  # what is piped must not end up on standard error
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=redirect,
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _gif(pipe: Pipeline, codes: Any) -> bytes:
    from aim.images import write

    total = len(codes)
    steps = range(max(1, total // GIF_FRAMES), total, max(1, total // GIF_FRAMES))
    frames = [*(pipe.preview(codes[:step]) for step in steps), pipe.picture(codes)]
    return write.gif_bytes(
        [frame for frame in frames if frame is not None], at_least=write.GIF_SIZE
    )
