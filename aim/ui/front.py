"""The page's HTML as it goes out: with a card for messengers and with the styles that hold before
any script has run, compressed; and files whose names change with their content stay in the browser.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from html import escape

import brotli
from gradio.route_utils import get_root_url
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.assets import text
from aim.ui.generate.recorded import recording

TITLE = "AiM: watch a picture being drawn, code by code"
TOLD = (
    "A Mamba-2 model draws a picture of any of a thousand things, one code after another, while "
    "you watch. Look inside, go back and take another way, let it race a Transformer."
)
CARD = "card.jpg"  # its address below the page's
_ACROSS, _DOWN, _EACH = 4, 2, 300  # pictures of a card, and pixels of one
_FOREIGN = re.compile(r'<meta\s+(?:name|property)="(?:og|twitter):[^>]*>\s*')
_CONFIG = "<script>window.gradio_config"  # where the head's tags end and values begin
PACKINGS: dict[str, Callable[[bytes], bytes]] = {  # the best first; "" is in whatever is accepted
    "br": partial(brotli.compress, quality=5),
    "gzip": partial(gzip.compress, compresslevel=6),
    "": bytes,
}
_KEEP = "public, max-age=31536000, immutable"


class Card:
    """The picture for messengers: recorded drawings. ``there`` is whether these are of ``pipe``."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe, self.there = pipe, recording().of(pipe)

    @cached_property
    def jpeg(self) -> bytes:
        """The file."""
        codes = [one.codes for one in recording().drawings[: _ACROSS * _DOWN]]
        images = [write.enlarge(image, _EACH) for image in self._pipe.pictures(codes)]
        out = io.BytesIO()
        write.contact_sheet(images, _ACROSS).save(out, "JPEG", quality=85)
        return out.getvalue()


def dressed(html: str, root: str, pictured: bool) -> str:
    """The HTML of a page at the address ``root``, with a card in place of Gradio's own, with a
    picture where it is ``pictured``.
    """
    head, config, rest = html.partition(_CONFIG)
    if not config:  # not the page, but something that Gradio says of itself
        return html
    tags = {"og:type": "website", "og:url": root, "og:title": TITLE, "og:description": TOLD}
    tags["twitter:card"] = "summary_large_image" if pictured else "summary"
    if pictured:
        tags["og:image"] = f"{root}/{CARD}"
    ours = [f"<title>{escape(TITLE)}</title>", f'<meta name="description" content="{TOLD}" />']
    for name, content in tags.items():
        kind = "name" if name.startswith("twitter") else "property"
        ours.append(f'<meta {kind}="{name}" content="{escape(content)}" />')
    ours.append(f"<style>{text('stage/first.css')}</style>")
    return _FOREIGN.sub("", head).replace("</style>", "</style>" + "".join(ours), 1) + config + rest


@lru_cache(maxsize=4)
def _packed(html: bytes, root: str, pictured: bool, packing: str) -> bytes:
    return PACKINGS[packing](dressed(html.decode(), root, pictured).encode())


class Front:
    """Middleware of a page that is ``Page``."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start: Message | None = None  # of HTML, until all of it is there
        parts: list[bytes] = []

        async def answer(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] == 200:
                headers = MutableHeaders(scope=message)
                if "/assets/" in scope["path"]:
                    headers["Cache-Control"] = _KEEP
                if headers.get("content-type", "").startswith("text/html"):
                    start = message
                    return
            if start is None:
                await send(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = await run_in_threadpool(self._made, scope, b"".join(parts), start)
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, answer)

    @staticmethod
    def _made(scope: Scope, body: bytes, start: Message) -> bytes:
        app, asked = scope["app"], Headers(scope=scope)
        accepted = asked.get("accept-encoding", "")
        packing = next(name for name in PACKINGS if name in accepted)
        root = get_root_url(Request(scope), scope["path"], app.root_path or scope["root_path"])
        made = _packed(body, root.rstrip("/"), app.blocks.card.there, packing)
        headers = MutableHeaders(scope=start)
        headers["Vary"] = "Accept-Encoding"
        if packing:
            headers["Content-Encoding"] = packing
        if "content-length" in headers:
            headers["Content-Length"] = str(len(made))
        return made


async def _card(request: Request) -> Response:
    card: Card = request.app.blocks.card
    if not card.there:
        return PlainTextResponse("There is no picture of this model.", 404)
    jpeg = await run_in_threadpool(lambda: card.jpeg)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


ROUTES = [Route("/" + CARD, _card)]
"""For the server of a page whose ``card`` is a ``Card``."""
