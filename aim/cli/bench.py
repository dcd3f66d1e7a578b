"""``python -m aim bench``: a subcommand a measurement, each a table for people and then one line of
JSON for programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aim.cli.opponents import opponents, other_of, others_of
from aim.cli.options import load, plan_of, settings, takes_model
from aim.cli.outputs import Outputs
from aim.cli.progress import progress

app = typer.Typer(
    no_args_is_help=True,
    help="Measure on this machine how fast models draw, train and answer: a table, then one line "
    "of JSON.",
)

Batches = Annotated[str, typer.Option(help="Batch sizes: 1,16,64.")]
Against = Annotated[
    str | None, typer.Option(help="The other model. Default: of that size, AiM or GPT.")
]
Opponents = Annotated[
    str | None,
    typer.Option(
        help="The others: gpt-xl,dit-xl-50,dit-xl-250; DiT is diffusers', dit-xl-50=FOLDER with "
        "other weights. Default: of that size, AiM or GPT."
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights", help="Of a named model only its sizes; nothing is downloaded."
    ),
]
Json = Annotated[
    Path | None, typer.Option("--json", help="Also write the line of JSON to this file.")
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Also write it as CSV to this file.")]


@app.command()
@takes_model("dtype", "backend", "ahead")
def speed(
    batch: Batches = "1",
    repeats: Annotated[int, typer.Option(min=1, help="Batches of each size, after warm-up.")] = 5,
    seconds: Annotated[
        float,
        typer.Option(min=0, help="More batches of a size until this much time went into them."),
    ] = 0.0,
    random_weights: RandomWeights = False,
    json: Json = None,
    **asked: Any,
) -> None:
    """How fast a model draws."""
    from aim.bench.speed import bench, parse_batches
    from aim.bench.table import as_json, as_table

    chosen = settings(**asked)
    outputs, batches = Outputs(json=json), parse_batches(batch)
    with progress() as bar:
        report = bench(load(chosen, random_weights), batches, repeats, seconds, bar.measuring)
    outputs.finish(as_table(report), as_json(report))


@app.command(name="ahead")
@takes_model("dtype", "backend")
def guess(
    items: Annotated[
        str, typer.Option(help="Codes of a picture that a pass looks at.")
    ] = "2,4,8,16",
    pictures: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 8,
    random_weights: RandomWeights = False,
    json: Json = None,
    **asked: Any,
) -> None:
    """How many codes a pass settles that looks ahead, by guidance, temperature, filters and class;
    codes alone are drawn, and nothing is timed.
    """
    from aim.bench import ahead

    chosen = settings(**asked)
    outputs, widths = Outputs(json=json), ahead.parse_widths(items)
    with progress() as bar:
        report = ahead.count(load(chosen, random_weights), widths, pictures, bar.measuring)
    outputs.finish(ahead.as_table(report), ahead.as_json(report))


@app.command()
@takes_model("dtype", "backend", "ahead")
def race(
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images at once.")] = 1,
    against: Opponents = None,
    laps: Annotated[int, typer.Option(min=5, help="Of each, after warm-up.")] = 5,
    label: Annotated[
        str | None, typer.Option("--class", help="By name or index. Default: the first.")
    ] = None,
    gates: Annotated[
        bool,
        typer.Option(
            "--gates", help="Also say whether the race was fair and quiet; ends with 1 if not."
        ),
    ] = False,
    random_weights: RandomWeights = False,
    json: Json = None,
    csv: Csv = None,
    **asked: Any,
) -> None:
    """Two models or more by turns at the same work.

    Only the file of JSON has the time of every code.
    """
    from aim.bench import race as racing
    from aim.bench.table import as_csv, as_json, race_table

    chosen = settings(**asked)
    outputs, others = Outputs(json, csv), others_of(chosen.model, against)
    with progress() as bar:
        first = load(chosen, random_weights)
        entries = [first, *opponents(chosen, first, others, random_weights)]
        result, _ = racing.race(entries, label, batch, laps, say=bar.measuring)
    found = racing.gates(result) if gates else []
    notes = [f"{'ok' if holds else 'missed'}: {what}" for what, holds in found]
    line, full = as_json(result, timestamps=False), as_json(result)
    outputs.finish(race_table(result), line, [*racing.ratios(result), *notes], as_csv(result), full)
    raise typer.Exit(0 if all(holds for _, holds in found) else 1)


@app.command()
@takes_model("dtype", "backend")
def scaling(
    tokens: Annotated[str, typer.Option(help="Codes an image, squares.")] = "256,1024,4096,16384",
    batch: Batches = "1",
    seconds: Annotated[
        float, typer.Option(min=0, help="For all of it. 0: as long as it takes.")
    ] = 0.0,
    against: Against = None,
    json: Json = None,
    csv: Csv = None,
    **asked: Any,
) -> None:
    """Two models with random weights, as sequence and batch grow."""
    from aim.bench import scaling as growing
    from aim.bench.speed import parse_batches, parse_numbers
    from aim.bench.table import as_csv, as_json, scaling_table

    chosen = settings(**asked)
    outputs, names = Outputs(json, csv), (chosen.model, other_of(chosen.model, against))
    sizes = parse_numbers("tokens", tokens, 2**20), parse_batches(batch)
    where = (chosen.device, chosen.dtype, chosen.backend)
    with progress("Building the models") as bar:
        result = growing.scaling(names, *sizes, *where, seconds or None, bar.measuring)
    notes = growing.verdicts(result)
    outputs.finish(scaling_table(result), as_json(result), notes, as_csv(result))


@app.command()
@takes_model("dtype", "backend")
def page(
    clients: Annotated[int, typer.Option(min=0, help="People who draw without a pause.")] = 0,
    seconds: Annotated[float, typer.Option(min=1, help="How long they do.")] = 30,
    json: Json = None,
    **asked: Any,
) -> None:
    """How fast the page answers, idle and while people draw; with ``--clients``, how many pictures
    a second they get of it.
    """
    chosen = settings(**asked)
    outputs, where = Outputs(json), (chosen.device, chosen.dtype, chosen.backend)
    from aim.ui import crowd, probe

    measured: Any = crowd if clients else probe
    found = (
        crowd.crowd(chosen.model, *where, clients, seconds)
        if clients
        else probe.probe(chosen.model, *where)
    )
    outputs.finish(measured.as_table(*found), measured.as_json(*found))


@app.command(name="load")
@takes_model("dtype", "backend")
def bear(
    clients: Annotated[int, typer.Option(min=1, help="Who come at once.")] = 64,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long they come.")] = 10,
    json: Json = None,
    **asked: Any,
) -> None:
    """What the page bears: clients who draw, compare, stop, hang up and do not listen; ends with 1
    where a picture was wrong or lost, or somebody refused without a word.
    """
    chosen = settings(**asked)
    outputs, where = Outputs(json), (chosen.device, chosen.dtype, chosen.backend)
    from aim.ui import load as loads

    found = loads.load(chosen.model, *where, clients, 60 * minutes)
    outputs.finish(loads.as_table(*found), loads.as_json(*found))
    raise typer.Exit(0 if found[0].held else 1)


@app.command()
@takes_model("dtype", "backend")
def replicas(
    count: Annotated[int, typer.Option("--replicas", min=2, help="How many, against one.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Images at once in each.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="For each figure, after warm-up.")] = 20,
    random_weights: RandomWeights = False,
    json: Json = None,
    **asked: Any,
) -> None:
    """How many pictures a second replicas draw, beside one of them."""
    from aim.bench import replicas as many

    chosen = settings(**asked)
    outputs = Outputs(json)
    with progress() as bar:
        pipe = load(chosen, random_weights)
        plan = plan_of(chosen, batch, random_weights)
        found = many.measure(pipe, plan, (1, count), seconds, bar.measuring)
    outputs.finish(many.as_table(*found), many.as_json(*found))


@app.command()
@takes_model()
def training(
    batch: Annotated[str, typer.Option(help="Images a step: 16,64.")] = "16",
    steps: Annotated[int, typer.Option(min=1, help="Steps that are measured.")] = 20,
    compile: Annotated[bool, typer.Option(help="With torch.compile.")] = False,
    scan: Annotated[str, typer.Option(help="Of AiM: auto, torch or mamba-ssm.")] = "auto",
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute layers again in the backward pass.")
    ] = False,
    json: Json = None,
    **asked: Any,
) -> None:
    """How many images a second a model learns from, with random weights and codes."""
    from aim.bench.machine import Machine
    from aim.bench.speed import parse_batches
    from aim.bench.training import as_json, as_table, throughput
    from aim.device import pick_device

    chosen = settings(**asked)
    outputs, sizes, where = Outputs(json), parse_batches(batch), pick_device(chosen.device)
    with progress("Building the model") as bar:
        results = []
        for size in sizes:
            bar.measuring(f"batch {size}")
            results.append(throughput(chosen.model, size, steps, where, compile, scan, recompute))
    machine = Machine.of(where)
    outputs.finish(as_table(results, machine), as_json(results, machine))
