"""``python -m aim train prior``: a config, codes and perhaps a checkpoint to start from, to a
trained model in a folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from aim.checkpoint import (
    copy_tokenizer,
    is_tokenizer,
    load_model,
    load_tokenizer_of,
    save_model,
    save_tokenizer,
    stored_dtype,
)
from aim.config import MODELS, PriorConfig
from aim.errors import InvalidInput
from aim.models.prior import Prior, build
from aim.models.vq.model import VQ
from aim.training.data.codes import CodeSet, tokenizer_version
from aim.training.data.sources import open_images
from aim.training.data.tokenize import tokenize_shards
from aim.training.finetune import with_classes, with_codes
from aim.training.identity import Identity, digest
from aim.training.keep import record
from aim.training.launch import Launch, Options
from aim.training.parallel import Processes, Sharded
from aim.training.prior import PriorTrainer
from aim.training.recipe import PriorRecipe, chosen, pairs, settle

MODEL, TOKENIZER, CODES = "model.safetensors", "vq.safetensors", "codes"


class Inputs(NamedTuple):
    """What a run is made of."""

    config: str
    codes: Path | None  # or ``images``
    val: Path | None
    out: Path
    changes: Sequence[str] = ()
    init: str | None = None
    tokenizer: str | Path | None = None  # a file, or a model whose it is
    images: Sequence[str] = ()
    versions: str = "flip"  # of images
    about: Sequence[str] = ()  # name=text, for the metadata of what is written
    storage: str = "bfloat16"  # of its matrices
    own: bool = False  # numbers in tar shards are no ImageNet classes


def train_prior(inputs: Inputs, options: Options, *, fsdp: bool = False) -> int:
    """Train, resume, or fine-tune; the exit code as of ``Launch.train``.

    Writes ``model.safetensors`` (the averaged weights), its tokenizer (by
    the name of the file given, else ``vq.safetensors``),
    state.pt, log.jsonl, config.json and sheets/ into ``inputs.out``. InvalidInput for settings,
    codes or checkpoints that do not fit, before the first step.
    """
    name, recipe, of_model = read_settings(inputs)
    # by the name that it has, so that several models may share it
    file = is_tokenizer(inputs.tokenizer)
    beside = file.name if file else TOKENIZER
    if beside == MODEL:
        raise InvalidInput(f"the tokenizer's file is called {MODEL}, as the model's; rename it")
    about, dtype = {**pairs(inputs.about), "tokenizer": beside}, stored_dtype(inputs.storage)
    with Launch(options, inputs.out) as launch:
        processes = launch.processes
        codes = inputs.codes or tokenize_images(inputs, processes)
        launch.accelerator.wait_for_everyone()
        data, held = read_codes(codes, inputs.val, processes)
        torch.manual_seed(recipe.seed)
        model, vq, began = _start(inputs, name, of_model, data)
        identity = _identity(recipe, model, data, held, vq, began)
        identity = identity._replace(network=record(model.config, about))
        launch.describe({"model": name, **_named(of_model)}, identity)
        if processes.first:
            _put_tokenizer(inputs, vq, file, inputs.out / beside)
        if processes.device.type == "cuda":
            data, held = (codes.to(processes.device) for codes in (data, held))

        def whole(average: nn.Module) -> Prior | None:
            """The averaged model in one piece, in the first process."""
            weights = (Sharded(average) if fsdp else average).state_dict()
            if not processes.first:
                return None
            plain = build(model.config)
            plain.load_state_dict(weights)
            return plain.eval()

        drawn = () if vq is None else (vq.to(processes.device),)
        hooks = launch.hooks(*drawn, whole=whole) if fsdp else launch.hooks(*drawn)
        trainer = PriorTrainer(
            model, data, held, recipe, inputs.out, processes, fsdp, hooks, identity
        )

        def write(path: Path, metadata: Mapping[str, str]) -> str:
            plain = whole(trainer.average)
            return save_model(path, plain, {**about, **metadata}, dtype) if plain else ""

        return launch.train(trainer, MODEL, write)


def _put_tokenizer(inputs: Inputs, vq: VQ | None, file: Path | None, to: Path) -> None:
    """Write the tokenizer beside the model: the very weights that the codes were made with."""
    if vq is None:
        print(f"no tokenizer is given: {MODEL} will need one beside it, {to.name}", flush=True)
    elif file:
        copy_tokenizer(file, to, pairs(inputs.about))
    else:
        save_tokenizer(to, vq, pairs(inputs.about), torch.float32)


def _named(of_model: Mapping[str, Any]) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in of_model.items()}


def _identity(
    recipe: PriorRecipe, model: Prior, data: CodeSet, held: CodeSet, vq: VQ | None, began: str
) -> Identity:
    """What the run is. InvalidInput for codes of another tokenizer than the model's."""
    tokenizer = None if vq is None else tokenizer_version(vq)
    for which in (data, held):
        if tokenizer and which.tokenizer and which.tokenizer != tokenizer:
            raise InvalidInput(
                "the codes were made by another tokenizer than the one that goes with the model; "
                "tokenize again"
            )
    return Identity.of(
        recipe,
        model.config,
        data=f"{len(data.labels)} images, {digest(data.codes.flatten(0, 1), data.labels)}",
        classes=list(data.classes or data.names) or _count(data),
        tokenizer=data.tokenizer or tokenizer,
        init=began,
    )


def read_settings(inputs: Inputs) -> tuple[str, PriorRecipe, dict[str, Any]]:
    """The model's name, the recipe, and changes to the model's own settings, which are written
    ``model.<name>``.
    """
    name, values, of_model = chosen(inputs.config, inputs.changes, "model", MODELS)
    fixed = of_model.keys() & {"num_classes", "classes", "class_names"}
    if fixed:
        raise InvalidInput(f"model.{min(fixed)} comes from the codes; leave it out")
    settle(MODELS[name].config, of_model)
    return name, settle(PriorRecipe(), values), of_model


def tokenize_images(inputs: Inputs, processes: Processes) -> Path:
    """The folder with the codes of ``inputs.images``, which the processes make together; what is
    there already is kept.
    """
    if not inputs.images:
        raise InvalidInput(
            "there is nothing to learn from; give --codes, or --images and a --tokenizer"
        )
    if not (inputs.tokenizer or inputs.init):
        raise InvalidInput("images become codes by a tokenizer; name one with --tokenizer")
    vq = load_tokenizer_of(inputs.tokenizer or inputs.init or "", processes.device)
    to = inputs.out / CODES
    report = tokenize_shards(
        vq,
        open_images(inputs.images, inputs.own),
        to,
        inputs.versions,
        rank=processes.rank,
        world=processes.world,
    )
    left_out = f", {report.skipped} could not be read" if report.skipped else ""
    print(f"{report.images} images as codes in {to}{left_out}", flush=True)
    return to


def read_codes(codes: Path, val: Path | None, processes: Processes) -> tuple[CodeSet, CodeSet]:
    """Training and validation codes. Without the latter, the last hundredth of the images, at most
    5,000, is held out.
    """
    data = CodeSet.load(codes)
    if val is not None:
        return data, CodeSet.load(val)
    count = len(data.labels)
    mixed = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    held, kept = mixed.split([out := min(5000, max(1, count // 100)), count - out])
    if processes.first:
        print(
            f"no validation codes are given: {len(held)} of {count} images are held out", flush=True
        )
    return tuple(
        data._replace(codes=data.codes[:, rows], labels=data.labels[rows]) for rows in (kept, held)
    )  # type: ignore[return-value]


def _start(
    inputs: Inputs, name: str, of_model: Mapping[str, Any], data: CodeSet
) -> tuple[Prior, VQ | None, str]:
    """The model to train, new or of a checkpoint with the classes of the codes, its tokenizer where
    one is known, and the version of the checkpoint, "" for none.
    """
    vq = None if inputs.tokenizer is None else load_tokenizer_of(inputs.tokenizer)
    if inputs.init is None:
        config = settle(MODELS[name].config, of_model)
        return build(_with_labels(config, data)), vq, ""
    loaded = load_model(inputs.init)
    config = settle(loaded.model.config, of_model)
    free = [name for name in of_model if name.endswith("_drop") or name == "sampling"]
    same = dataclasses.replace(config, **{k: getattr(loaded.model.config, k) for k in free})
    if same != loaded.model.config:
        raise InvalidInput(
            f"{inputs.init} is another model than {name} with {dict(of_model)}; only its dropout "
            "and sampling can be changed"
        )
    model = build(config)
    model.load_state_dict(loaded.model.state_dict())
    codes = data.codes.shape[2]
    if codes != config.num_tokens:
        print(
            f"{inputs.init} draws {config.num_tokens} codes an image, these are {codes}: its "
            "positions are interpolated",
            flush=True,
        )
        model = with_codes(model, codes)
    own = with_classes(model, tuple(data.classes), _count(data), tuple(data.names))
    return own, vq or loaded.tokenizer, loaded.version


def _with_labels(config: PriorConfig, data: CodeSet) -> PriorConfig:
    """``config`` for the classes of the codes."""
    return dataclasses.replace(
        config, num_classes=_count(data), classes=tuple(data.classes), class_names=tuple(data.names)
    )


def _count(data: CodeSet) -> int:
    return len(data.classes) or len(data.names) or int(data.labels.max()) + 1
