"""The page's HTML as it goes out: with a card for messengers, with words and styles that hold
before any script has run, compressed; and files whose names change with their content stay in the
browser.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from html import escape
from urllib.parse import urlencode

import brotli
from gradio.route_utils import get_root_url
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aim.errors import AimError
from aim.images import write
from aim.pipeline import Pipeline
from aim.ui.assets import text
from aim.ui.generate.recorded import recording

LONGEST = 100  # letters of a class in a link
CARD = "card.jpg"  # its address below the page's
_ACROSS, _DOWN, _EACH = 4, 2, 300  # pictures of a card, and pixels of one
_FOREIGN = re.compile(r'<meta\s+(?:name|property)="(?:og|twitter):[^>]*>\s*')
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
_BODY = "<gradio-app"  # what the scripts fill
# a link to another tab shows that one
_ELSEWHERE = (
    """<script>location.hash && document.querySelector(".aim-before div")?.remove()</script>"""
)
_CONFIG = "<script>window.gradio_config"  # where the head's tags end and values begin
PACKINGS: dict[str, Callable[[bytes], bytes]] = {  # the best first; "" is in whatever is accepted
    "br": partial(brotli.compress, quality=5),
    "gzip": partial(gzip.compress, compresslevel=6),
    "": bytes,
}
_KEEP = "public, max-age=31536000, immutable"


class Card:
    """What is seen before the page is there: in messengers, words and a picture of recorded
    drawings, ``there`` being whether these are of ``pipe``; in the browser, the ``headline`` in
    Markdown, and the ``picture`` that plays, as an address.
    """

    def __init__(self, pipe: Pipeline, headline: str = "", picture: str = "") -> None:
        self._pipe, self.there = pipe, recording().of(pipe)
        self._headline, self._picture = _LINK.sub(r"\1", headline), picture

    @property
    def first(self) -> str:
        """HTML that holds until the page's own is there."""
        shown = f'<div style="--picture: url({self._picture})"><i></i><i></i></div>'
        words = f"<h1>AiM</h1><p>{escape(self._headline)}</p>{shown if self._picture else ''}"
        return f'<header class="aim-before">{words}</header>{_ELSEWHERE}'

    def named(self, label: str) -> str:
        """What the class of a link is called; empty for none, and for one that is not known."""
        label = label[:LONGEST]
        try:
            index = self._pipe.resolve(int(label) if label.isdecimal() else label)
        except AimError:
            return ""
        return self._pipe.labels.name(index)

    def tags(self, root: str, name: str) -> dict[str, str]:
        """By their names, of a page at the address ``root``, opened with a link to the class called
        ``name`` or with none.
        """
        what = f"a picture of {name or f'any of {len(self._pipe.classes)} things'}"
        title = f"AiM: watch a picture{f' of {name}' if name else ''} being drawn, code by code"
        told = (
            f"A Mamba-2 model draws {what}, one code after another, while you watch. Look inside, "
            "go back and take another way, let it race a Transformer."
        )
        tags = {
            **{"description": told, "og:description": told, "og:type": "website"},
            "og:url": f"{root}/?{urlencode({'class': name})}" if name else root,
            "og:title": title,
            "twitter:card": "summary_large_image" if self.there else "summary",
        }
        return {**tags, "og:image": f"{root}/{CARD}"} if self.there else tags

    @cached_property
    def jpeg(self) -> bytes:
        """The file."""
        codes = [one.codes for one in recording().drawings[: _ACROSS * _DOWN]]
        images = [write.enlarge(image, _EACH) for image in self._pipe.pictures(codes)]
        out = io.BytesIO()
        write.contact_sheet(images, _ACROSS).save(out, "JPEG", quality=85)
        return out.getvalue()


def dressed(html: str, tags: Mapping[str, str], first: str) -> str:
    """The HTML of a page with a card of these ``tags`` in place of Gradio's own, and with what is
    seen ``first``.
    """
    head, config, rest = html.partition(_CONFIG)
    if not config:  # not the page, but something that Gradio says of itself
        return html
    ours = [f"<title>{escape(tags['og:title'])}</title>"]
    for name, content in tags.items():
        kind = "property" if name.startswith("og:") else "name"
        ours.append(f'<meta {kind}="{name}" content="{escape(content)}" />')
    ours.append(f"<style>{text('stage/first.css')}</style>")
    head = _FOREIGN.sub("", head).replace("</style>", "</style>" + "".join(ours), 1)
    return head + config + rest.replace(_BODY, first + _BODY, 1)


@lru_cache(maxsize=16)
def _packed(html: bytes, card: Card, root: str, name: str, packing: str) -> bytes:
    return PACKINGS[packing](dressed(html.decode(), card.tags(root, name), card.first).encode())


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
        card: Card = app.blocks.card
        name = card.named(Request(scope).query_params.get("class", ""))
        made = _packed(body, card, root.rstrip("/"), name, packing)
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
