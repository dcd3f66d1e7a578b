"""What was drawn here lately, as codes. Whatever somebody takes home is made of them when it is
asked for, once: PNG, GIF, MP4, a ZIP of many.
"""

from __future__ import annotations

import io
import mimetypes
import secrets
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.stage import movie

MOST = 2000  # drawings that are remembered, of everybody
MADE = 64  # files of them that are kept: the last ones asked for
LARGE = 512  # pixels of an enlarged PNG, at least


@dataclass(frozen=True, eq=False)
class Drawn:
    """One picture or several that were drawn together."""

    pipe: Pipeline
    codes: tuple[np.ndarray, ...]  # (num_tokens,) of each
    parameters: tuple[dict[str, Any], ...]  # of each

    @property
    def together(self) -> dict[str, Any]:
        """The parameters of all in one: those of the first, and how many there are."""
        first, *rest = self.parameters
        return {**first, "count": len(self.codes)} if rest else first

    def stem(self, number: int | None = None) -> str:
        """What a file is called of picture ``number``, or of all together."""
        p = self.parameters[number or 0]
        name = f"{p['model']} {self.pipe.title(p['class'])} seed {p['seed']}"
        more = f" and {len(self.codes) - 1}" if number is None and len(self.codes) > 1 else ""
        return write.file_stem(name + more)

    def png(
        self,
        number: int | None = None,
        at_least: int = 0,
        images: Sequence[Image.Image] | None = None,
    ) -> bytes:
        """Picture ``number``, or all side by side, with parameters inside; ``images`` are they, for
        who has them.
        """
        images = images or self.pipe.pictures(self.codes)
        image = write.mosaic(images) if number is None else images[number]
        parameters = self.together if number is None else self.parameters[number]
        if max(image.size) < at_least:
            image = write.enlarge(image, at_least)
        return write.png_bytes(image, parameters)

    def frames(self) -> list[Image.Image]:
        """How they were drawn."""
        return movie.frames(self.pipe.pictures(self.codes), self.pipe.tokenizer.config.grid)


KINDS: dict[str, Callable[[Drawn], bytes]] = {
    "png": Drawn.png,
    "large.png": lambda drawn: drawn.png(at_least=LARGE),
    "gif": lambda drawn: write.gif_bytes(drawn.frames(), movie.FPS, movie.HOLD),
    "mp4": lambda drawn: write.mp4_bytes(drawn.frames(), movie.FPS, movie.HOLD),
}
"""What can be made of a drawing, by the ending of its file."""


class Drawings:
    """The last ``MOST`` drawings, by ids that nobody can guess. Thread-safe."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[str, Drawn] = OrderedDict()
        self._made: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._making: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def add(self, drawn: Drawn) -> str:
        """Remember a drawing; returns its id."""
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._drawn[name] = drawn
            while len(self._drawn) > MOST:
                self._drawn.popitem(last=False)
        return name

    def get(self, name: str) -> Drawn | None:
        """A drawing, None for one that is not remembered."""
        return self._drawn.get(name)

    def file(self, name: str, kind: str) -> bytes | None:
        """A file of one of ``KINDS``, made at the first call; None for a drawing that is not
        remembered. Two who ask at once share one making.
        """
        drawn, key = self.get(name), (name, kind)
        if drawn is None:
            return None
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                if key not in self._made:
                    made = KINDS[kind](drawn)
                    with self._lock:
                        self._made[key] = made
                        while len(self._made) > MADE:
                            self._made.popitem(last=False)
                return self._made[key]
        finally:
            with self._lock:
                self._making.pop(key, None)

    def archive(self, names: Iterable[str]) -> bytes:
        """Every picture of the drawings as a ZIP, numbered in that order; a text inside says what
        is not remembered any more.
        """
        out, number, missing = io.BytesIO(), 0, 0
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed
            for name in names:
                drawn = self.get(name)
                missing += drawn is None
                for i in range(len(drawn.codes) if drawn else 0):
                    assert drawn is not None
                    number += 1
                    archive.writestr(f"{number:03d}-{drawn.stem(i)}.png", drawn.png(i))
            if missing:
                archive.writestr("missing.txt", _missing(missing))
        return out.getvalue()


def _missing(count: int) -> str:
    return (
        f"{count} drawing{'s' * (count > 1)} of this visit left this server's memory, and "
        f"{'are' if count > 1 else 'is'} not in this archive. Their settings draw them again.\n"
    )


def _sent(data: bytes, name: str) -> Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(
        data, headers={"Content-Disposition": f'attachment; filename="{name}"'}, media_type=kind
    )


def _gone() -> Response:
    text = "This drawing left the server's memory. Its settings draw it again: press Generate."
    return PlainTextResponse(text, 404)


async def _one(request: Request) -> Response:
    drawings: Drawings = request.app.blocks.drawings
    name, kind = request.path_params["name"], request.path_params["kind"]
    drawn = drawings.get(name)
    if drawn is None or kind not in KINDS:
        return _gone()
    data = await run_in_threadpool(drawings.file, name, kind)
    return _sent(data, f"{drawn.stem()}.{kind}") if data is not None else _gone()


async def _all(request: Request) -> Response:
    drawings: Drawings = request.app.blocks.drawings
    names = request.query_params.get("names", "").split(",")[:MOST]
    return _sent(await run_in_threadpool(drawings.archive, names), "aim-pictures.zip")


ROUTES = [Route("/drawings/{name}/{kind}", _one), Route("/drawings.zip", _all)]
"""For the server of a page whose ``drawings`` are ``Drawings``: what was drawn there, as files."""
