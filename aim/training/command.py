"""``python -m aim train prior``: a config, codes and perhaps a checkpoint to start from, to a trained model in a folder."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from aim.checkpoint import load_model, load_tokenizer, save_model, save_tokenizer
from aim.config import MODELS, PriorConfig
from aim.errors import InvalidInput
from aim.models.prior import Prior, build
from aim.models.vq import VQ
from aim.training.codes import CodeSet
from aim.training.finetune import with_classes
from aim.training.parallel import Processes, Sharded, accelerator_on
from aim.training.prior import PriorTrainer
from aim.training.recipe import PriorRecipe, overrides, read_config, settle

MODEL, TOKENIZER, CONFIG = "model.safetensors", "vq.safetensors", "config.json"
STOPPED = 143  # what a shell sees of a process that SIGTERM ended

Draw = Callable[[Prior, VQ, Path], None]


class Inputs(NamedTuple):
    """What a run is made of."""

    config: str
    codes: Path
    val: Path | None
    out: Path
    changes: Sequence[str] = ()
    init: str | None = None
    tokenizer: Path | None = None


def train_prior(
    inputs: Inputs,
    *,
    fsdp: bool = False,
    tracker: str = "tensorboard",
    device: str = "auto",
    draw: Draw | None = None,
    on_step: Callable[[Any], None] | None = None,
) -> int:
    """Train, resume, or fine-tune; the exit code: 0 at the end, 143 after SIGTERM, when the same command goes on.

    Writes ``model.safetensors`` (the averaged weights), ``vq.safetensors`` (its tokenizer), state.pt, log.jsonl, config.json
    and sheets/ into ``inputs.out``. InvalidInput for settings, codes or checkpoints that do not fit, before the first step.
    """
    accelerator = accelerator_on(device, tracker, inputs.out)
    processes = Processes(accelerator.process_index, accelerator.num_processes, accelerator.device)
    name, recipe, of_model = read_settings(inputs)
    data, held = read_codes(inputs, processes)
    if processes.device.type == "cuda":
        data, held = (CodeSet(s.codes.to(processes.device), s.labels.to(processes.device), s.classes) for s in (data, held))
    torch.manual_seed(recipe.seed)
    model, vq = _start(inputs, name, of_model, data)
    if processes.first:
        inputs.out.mkdir(parents=True, exist_ok=True)
        settings = {"model": name, "settings": of_model, "init": inputs.init, **dataclasses.asdict(recipe)}
        (inputs.out / CONFIG).write_text(json.dumps(settings, indent=1) + "\n")
        if vq is not None:
            save_tokenizer(inputs.out / TOKENIZER, vq, {})
    if tracker != "none":
        accelerator.init_trackers("aim")

    def log(step: int, figures: Mapping[str, Any]) -> None:
        accelerator.log(dict(figures), step=step)

    def sheet(average: Prior, step: int) -> None:
        if draw and vq is not None and processes.first and not fsdp:
            draw(average, vq.to(processes.device), inputs.out / "sheets" / f"{step:07d}.png")

    trainer = PriorTrainer(model, data, held, recipe, inputs.out, processes, fsdp, log, sheet, on_step)
    trainer.run()
    if processes.world > 1:
        accelerator.wait_for_everyone()
    stopped = trainer.run_state.stopped
    if stopped and processes.first:
        print(f"stopped at step {trainer.run_state.step}, saved in {inputs.out}; the same command goes on from there", file=sys.stderr)
    if not stopped:
        _write(trainer, inputs.out, processes, fsdp, sampling=model.config)
    accelerator.end_training()
    return STOPPED if stopped else 0


def read_settings(inputs: Inputs) -> tuple[str, PriorRecipe, dict[str, Any]]:
    """The model's name, the recipe, and changes to the model's own settings, which are written ``model.<name>``."""
    values = read_config(inputs.config) | overrides(inputs.changes)
    name = values.pop("model", None)
    if name not in MODELS:
        raise InvalidInput(f"model is {name!r}; it must be one of {', '.join(MODELS)}")
    of_model = {key.removeprefix("model."): values.pop(key) for key in list(values) if key.startswith("model.")}
    fixed = of_model.keys() & {"num_classes", "classes", "sampling"}
    if fixed:
        raise InvalidInput(f"model.{min(fixed)} comes from the codes; leave it out")
    settle(MODELS[name].config, of_model)
    return name, settle(PriorRecipe(), values), of_model


def read_codes(inputs: Inputs, processes: Processes) -> tuple[CodeSet, CodeSet]:
    """Training and validation codes. Without the latter, the last hundredth of the images, at most 5,000, is held out."""
    data = CodeSet.load(inputs.codes)
    if inputs.val is not None:
        return data, CodeSet.load(inputs.val)
    count = len(data.labels)
    mixed = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    held, kept = mixed.split([out := min(5000, max(1, count // 100)), count - out])
    if processes.first:
        print(f"no validation codes are given: {len(held)} of {count} images are held out", flush=True)
    return tuple(data._replace(codes=data.codes[:, rows], labels=data.labels[rows]) for rows in (kept, held))  # type: ignore[return-value]


def _start(inputs: Inputs, name: str, of_model: Mapping[str, Any], data: CodeSet) -> tuple[Prior, VQ | None]:
    """The model to train, new or of a checkpoint with the classes of the codes, and its tokenizer where one is known."""
    vq = None if inputs.tokenizer is None else load_tokenizer(inputs.tokenizer)
    if inputs.init is None:
        config = settle(MODELS[name].config, of_model)
        return build(_with_labels(config, data)), vq
    loaded = load_model(inputs.init)
    config = settle(loaded.model.config, of_model)
    same = dataclasses.replace(config, **{k: getattr(loaded.model.config, k) for k in of_model if k.endswith("_drop")})
    if same != loaded.model.config:
        raise InvalidInput(f"{inputs.init} is another model than {name} with {dict(of_model)}; only its dropout can be changed")
    model = build(config)
    model.load_state_dict(loaded.model.state_dict())
    num_classes = len(data.classes) or int(data.labels.max()) + 1
    return with_classes(model, tuple(data.classes), num_classes), vq or loaded.tokenizer


def _with_labels(config: PriorConfig, data: CodeSet) -> PriorConfig:
    """``config`` for the classes of the codes."""
    count = len(data.classes) or int(data.labels.max()) + 1
    return dataclasses.replace(config, num_classes=count, classes=tuple(data.classes))


def _write(trainer: PriorTrainer, out: Path, processes: Processes, fsdp: bool, sampling: PriorConfig) -> None:
    """The averaged model as a checkpoint that ``aim.load`` reads, float32 matrices as bf16."""
    average = trainer.ema.model
    weights = Sharded(average).state_dict() if fsdp else average.state_dict()
    if not processes.first:
        return
    plain = build(sampling)
    plain.load_state_dict(weights)
    version = save_model(out / MODEL, plain, {"tokenizer": TOKENIZER})
    print(f"{out / MODEL} {version}", flush=True)
