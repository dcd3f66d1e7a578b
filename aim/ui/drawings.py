"""Drawings as the browser keeps them: settings and codes. Whatever somebody takes home is made of
them when it is asked for, once: PNG, GIF, MP4, a ZIP of many. Nothing is kept here that a file
needs, so that none is too old to be had.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import mimetypes
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aim.config import INDEX, SamplingParams
from aim.errors import AimError, InvalidInput
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.models import Models
from aim.ui.settings.recall import differences, query, recall
from aim.ui.stage import movie
from aim.ui.stage.updates import explain

MOST = 200  # pictures of one file
KEPT = 256  # pictures that stay decoded: the last ones asked for
MADE = 64  # files that are kept
LARGE = 512  # pixels of an enlarged PNG, at least
# of a picture's parameters, what is not of its settings: where it was drawn, and of whole numbers
# how many codes there are of one that was stopped, and how many rows were given
WHERE, COUNTS = ("device", "dtype", "package"), ("codes_drawn", "rows_kept")


@dataclass(frozen=True, eq=False)
class Drawn:
    """One picture or several that were drawn together."""

    pipe: Pipeline
    codes: tuple[np.ndarray, ...]  # (n,) of each, fewer than num_tokens where it was stopped
    parameters: tuple[dict[str, Any], ...]  # of each

    @classmethod
    def of(cls, told: Any, models: Models) -> Drawn:
        """What ``told`` gave. InvalidInput for anything else, and for codes of another version of
        the model, which mean something else now.
        """
        if not isinstance(told, list) or not 0 < len(told) <= MOST:
            raise InvalidInput(f"there are 1 to {MOST} pictures in a file; give a list of them")
        found = [_picture(one, models) for one in told]
        pipe = found[0][0]
        if any(other is not pipe for other, *_ in found):
            raise InvalidInput("the pictures of one file are of one model")
        return cls(pipe, tuple(codes for _, codes, _ in found), tuple(p for *_, p in found))

    def told(self) -> list[dict[str, Any]]:
        """Each picture as the browser keeps it: its ``parameters``, its ``codes`` in letters, a
        ``caption``, and the ``link`` behind the question mark that draws it again.
        """
        return [
            {
                "parameters": parameters,
                "codes": base64.b64encode(codes.astype("<u2").tobytes()).decode(),
                "caption": caption(parameters),
                "link": query({**parameters, "count": 1}),
            }
            for codes, parameters in zip(self.codes, self.parameters, strict=True)
        ]

    @property
    def together(self) -> dict[str, Any]:
        """The parameters of all in one: those of the first, and how many there are."""
        first, *rest = self.parameters
        return {**first, "count": len(self.codes)} if rest else first

    @property
    def stem(self) -> str:
        """What its files are called."""
        p, more = self.parameters[0], len(self.codes) - 1
        name = f"{p['model']} {self.pipe.title(p['class'])} seed {p['seed']}"
        return write.file_stem(f"{name} and {more}" if more else name)

    def png(self, images: Sequence[Image.Image], at_least: int = 0) -> bytes:
        """``images``, which are its pictures, side by side with the parameters inside."""
        image = write.mosaic(images)
        if max(image.size) < at_least:
            image = write.enlarge(image, at_least)
        return write.png_bytes(image, self.together)

    def frames(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """How ``images``, which are its pictures, were drawn."""
        return movie.frames(images, self.pipe.tokenizer.config.grid)


def stopped(
    pipe: Pipeline, codes: Sequence[np.ndarray], parameters: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What there is of pictures that were stopped, as of ``Drawn.told``: those that were begun."""
    begun = [
        (mine, {**its, "codes_drawn": len(mine)})
        for mine, its in zip(codes, parameters, strict=True)
        if len(mine)
    ]
    return Drawn(pipe, *zip(*begun, strict=True)).told() if begun else []


def caption(parameters: dict[str, Any]) -> str:
    """The settings of a picture in one line."""
    sampling = SamplingParams(**{name: parameters[name] for name in INDEX}).describe()
    words = [parameters["class_name"], f"seed {parameters['seed']}", sampling, parameters["model"]]
    if "rows_kept" in parameters:
        words.append(f"{parameters['rows_kept']} rows kept of another")
    if "codes_drawn" in parameters:
        words.append(f"stopped at {parameters['codes_drawn']} codes")
    return ", ".join(words)


KINDS: dict[str, Callable[[Drawn, Sequence[Image.Image]], bytes]] = {
    "png": Drawn.png,
    "large.png": lambda drawn, images: drawn.png(images, LARGE),
    "gif": lambda drawn, images: write.gif_bytes(drawn.frames(images), movie.FPS, movie.HOLD),
    "mp4": lambda drawn, images: write.mp4_bytes(drawn.frames(images), movie.FPS, movie.HOLD),
}
"""What can be made of a drawing and its pictures, by the ending of its file."""


class Drawings:
    """Makes files of drawings, and keeps those that were made last. Thread-safe."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def remember(self, drawn: Drawn, images: Sequence[Image.Image]) -> None:
        """``images`` are the pictures of ``drawn``, and need no decoding for a while."""
        for codes, image in zip(drawn.codes, images, strict=True):
            self._keep(self._pictures, _key(drawn.pipe, codes), image, KEPT)

    def pictures(self, drawn: Drawn) -> list[Image.Image]:
        """RGB images of all pictures."""
        for codes in drawn.codes:
            if (key := _key(drawn.pipe, codes)) not in self._pictures:
                self._keep(self._pictures, key, _image(drawn.pipe, codes), KEPT)
        known = self._pictures.get
        return [known(_key(drawn.pipe, c)) or _image(drawn.pipe, c) for c in drawn.codes]

    def file(self, drawn: Drawn, kind: str) -> bytes:
        """A file of one of ``KINDS``. Two who ask at once share one making."""
        told = [kind, drawn.parameters, [_key(drawn.pipe, codes) for codes in drawn.codes]]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                if (made := self._made.get(key)) is None:
                    made = KINDS[kind](drawn, self.pictures(drawn))
                    self._keep(self._made, key, made, MADE)
                return made
        finally:
            with self._lock:
                self._making.pop(key, None)

    def archive(self, told: Any) -> bytes:
        """Every picture of ``told`` by itself as a ZIP, numbered in that order; a text inside says
        which could not be had, and why.
        """
        if not isinstance(told, list) or not 0 < len(told) <= MOST:
            raise InvalidInput(f"there are 1 to {MOST} pictures in a file; give a list of them")
        out, missing = io.BytesIO(), []
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed
            for number, one in enumerate(told, 1):
                try:
                    drawn = Drawn.of([one], self.models)
                except AimError as error:
                    missing.append(f"{number:03d}: {explain(error)}\n")
                else:
                    archive.writestr(f"{number:03d}-{drawn.stem}.png", self.file(drawn, "png"))
            if missing:
                archive.writestr("missing.txt", "".join(missing))
        return out.getvalue()

    def _keep(self, among: OrderedDict[str, Any], key: str, value: Any, most: int) -> None:
        with self._lock:
            among[key] = value
            while len(among) > most:
                among.popitem(last=False)


def _key(pipe: Pipeline, codes: np.ndarray) -> str:
    whole = f"{pipe.name} {pipe.version} ".encode() + codes.astype("<u2").tobytes()
    return hashlib.sha256(whole).hexdigest()


def _image(pipe: Pipeline, codes: np.ndarray) -> Image.Image:
    image = pipe.show(codes)
    assert image is not None  # there are codes
    return write.flatten(image, movie.PAPER)


def _picture(told: Any, models: Models) -> tuple[Pipeline, np.ndarray, dict[str, Any]]:
    """Model, codes and parameters of one of ``Drawn.told``, checked."""
    values = told.get("parameters") if isinstance(told, dict) else None
    if not isinstance(values, dict):
        raise InvalidInput("a picture is told by its parameters and its codes")
    wanted = recall(values, models)
    pipe = models.get(wanted.model or models.default)
    if values.get("version") != pipe.version:
        told_version = differences({"version": values.get("version")}, pipe)
        raise InvalidInput(
            f"This picture is of another version of {pipe.name}, and its codes mean something else "
            f"now. Its settings draw it anew. {told_version}"
        )
    try:
        codes = np.frombuffer(base64.b64decode(str(told.get("codes")), validate=True), "<u2")
    except (binascii.Error, ValueError):
        raise InvalidInput("the codes of a picture are base64 of two bytes each") from None
    most, size = pipe.model.config.num_tokens, pipe.model.config.vocab_size
    if not 0 < len(codes) <= most or codes.max() >= size:
        raise InvalidInput(f"a picture of {pipe.name} has 1 to {most} codes below {size}")
    params = pipe.params(**wanted.sampling)
    made = pipe.parameters(wanted.label, wanted.seed, params)  # type: ignore[arg-type]
    made |= {name: str(values[name])[:40] for name in WHERE if name in values}
    made |= {name: int(values[name]) for name in COUNTS if type(values.get(name)) is int}
    return pipe, codes.astype(np.int64), made


async def _asked(request: Request) -> Response:
    drawings: Drawings = request.app.blocks.drawings
    kind = request.path_params["kind"]
    try:
        told = json.loads(await request.body())
        if kind == "zip":
            data, name = await run_in_threadpool(drawings.archive, told), "aim-pictures.zip"
        elif kind in KINDS:
            drawn = await run_in_threadpool(Drawn.of, told, drawings.models)
            data, name = await run_in_threadpool(drawings.file, drawn, kind), f"{drawn.stem}.{kind}"
        else:
            return PlainTextResponse("There is no such kind of file.", 404)
    except (AimError, ValueError) as error:
        known = isinstance(error, AimError)
        return PlainTextResponse(explain(error) if known else "That is no JSON.", 400)
    return Response(
        data,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
        media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
    )


ROUTES = [Route("/drawings/{kind}", _asked, methods=["POST"])]
"""For the server of a page whose ``drawings`` are ``Drawings``: the file of one kind that is made
of the body, a list as of ``Drawn.told``.
"""
