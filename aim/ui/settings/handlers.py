"""Settings that come from elsewhere: a picture that is clicked, another model, a PNG, a link."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from aim.config import INDEX
from aim.errors import AimError
from aim.pipeline import Pipeline
from aim.ui import uploads
from aim.ui.models import Models, class_choices, first_class
from aim.ui.settings.recall import COUNT, NAMES, differences, query, recall
from aim.ui.stage.updates import Update, awaited, status, warn


class Boxes(NamedTuple):
    """The components that hold settings, and those that tell of them."""

    model: Component
    label: Component
    sampling: dict[str, Component]  # by name
    seed: Component
    random_seed: Component
    pictures: Component
    note: Component
    current: gr.State  # the model that the page shows
    told: Component

    @property
    def outputs(self) -> list[Component]:
        """All of them."""
        return [*(box for box in self if not isinstance(box, dict)), *self.sampling.values()]


def describe(pipe: Pipeline) -> str:
    """One line about what the model draws, in Markdown."""
    size, codes = pipe.tokenizer.config.output_size, pipe.model.config.num_tokens
    previews = " Previews are rough here, one colour a code." if pipe.rough_previews else ""
    return (
        f"**{pipe.name}** draws {size}×{size} pixels as {codes} codes, one after another; dots are "
        f"codes not drawn yet.{previews} "
        f"The picture is shown enlarged and smoothed; the PNG has its own {size}×{size} pixels."
    )


class SettingsActions:
    """The handlers. ``old`` is the model that the page shows."""

    def __init__(self, models: Models, boxes: Boxes) -> None:
        self.models, self.boxes = models, boxes

    def switch(self, name: str, index: Any, old: str) -> Iterator[Update]:
        """Load the model that was picked, and take over its classes and defaults; if it cannot be
        had, keep the old one.
        """
        boxes = self.boxes
        try:
            new = yield from awaited(self.models, name, lambda *told: {boxes.told: status(*told)})
            assert new is not None  # nobody stops it
        except AimError as error:
            message = f"{name} could not be loaded, so {old} stays in use: {error}"
            warn(message)
            yield {boxes.model: old, boxes.told: status("failed", message)}
            return
        own = new.sampling
        yield {
            boxes.label: gr.update(choices=class_choices(new), value=first_class(new, index)),
            **{box: getattr(own, name) for name, box in boxes.sampling.items()},
            **{
                boxes.note: describe(new),
                boxes.current: name,
                boxes.told: status("idle", f"{new.name} is ready"),
            },
        }

    def restore(self, values: Mapping[str, Any], old: str) -> Iterator[Update]:
        """Set the page to parameters from outside, loading their model if it is another; say where
        the picture may come out otherwise.
        """
        boxes = self.boxes
        try:
            wanted = recall(values, self.models)
            if wanted.model not in (None, old):
                yield from self.switch(wanted.model, wanted.label, old)
            here = self.models.peek(wanted.model or old)
            if here is None:  # it could not be loaded, and switch said why
                return
            index = None if wanted.label is None else here.resolve(wanted.label)
        except AimError as error:
            yield self._refused(error)
            return
        named = {
            boxes.model: wanted.model,
            boxes.label: index,
            boxes.seed: wanted.seed,
            boxes.pictures: wanted.count,
        }
        sampling = {boxes.sampling[name]: value for name, value in wanted.sampling.items()}
        known = {box: value for box, value in {**named, **sampling}.items() if value is not None}
        fixed = {} if wanted.seed is None else {boxes.random_seed: False}
        told = differences(values, here)
        if told:
            warn(told)
        text = f"The settings are taken over. {told or 'They draw the picture again.'}"
        yield {**known, **fixed, boxes.told: status("idle", text)}

    def _refused(self, error: AimError) -> Update:
        warn(str(error))
        return {self.boxes.told: status("failed", str(error))}

    def opened(self, request: gr.Request) -> Iterator[Update]:
        """Take over the settings in the link that the page was opened with; without any, a person
        gets ``COUNT`` pictures at once, where a program gets one.
        """
        boxes = self.boxes
        values = {
            name: request.query_params[name] for name in NAMES if name in request.query_params
        }
        if values:
            yield from self.restore(values, self.models.default)
        else:
            yield {boxes.pictures: COUNT}

    def taken(self, old: str, event: gr.EventData) -> Iterator[Update]:
        """Take over the settings of a picture of the visit, which is one."""
        yield from self.restore({**event._data, "count": 1}, old)

    def reread(self, path: str, old: str) -> Iterator[Update]:
        """Take over the settings in a PNG that was dropped."""
        try:
            values = uploads.parameters(path)
        except AimError as error:
            yield self._refused(error)
        else:
            yield from self.restore(values, old)

    def linked(self, name: str, label: Any, seed: Any, count: Any, *sampling: Any) -> str:
        """The settings in the boxes, as the part of a link behind the question mark."""
        version = self.models.get(name).version
        named = {"model": name, "version": version, "class": label, "seed": seed, "count": count}
        return query({**named, **dict(zip(INDEX, sampling, strict=True))})

    def random_class(self, model: str = "") -> int:
        """The ImageNet index of one of the classes that a model knows."""
        return random.choice(self.models.get(model or self.models.default).classes)

    def pick(self, event: gr.EventData) -> int:
        """The class of the picture that was clicked."""
        return int(event.index)
