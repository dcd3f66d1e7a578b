"""What stands before every request to the page's server: how much may come in, how long it may
take, and what a browser may do with what goes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aim.ui.stage.updates import DISK, FULL

# Gradio fills in templates by evaluating them and styles elements in line, so that scripts of the
# page itself cannot be told from others; but nothing is fetched from or sent to elsewhere: no form
# leaves this page, and no other site's script is read.
POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "form-action 'none'",
        "base-uri 'self'",
        "object-src 'none'",
    )
)


UPLOAD = b"multipart/form-data"
REST = 2_000_000  # bytes of any other body: values, not files


class Gate:
    """Middleware of a ``Page``, whose ``limits`` say how much and how long."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", POLICY)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "same-origin")
            await send(message)

        headers, limits = dict(scope["headers"]), scope["app"].blocks.limits
        files = headers.get(b"content-type", b"").startswith(UPLOAD)
        most = limits.upload_mb * 10**6 if files else REST
        try:
            told = headers.get(b"content-length", b"0")
            if not told.isdigit() or int(told[:20]) > most:
                raise _too_much(most)
            with self._tab(scope):
                await self.app(scope, _bounded(receive, most, limits.receive_seconds), answer)
        except (HTTPException, OSError) as error:
            if begun or (isinstance(error, OSError) and error.errno not in FULL):
                raise
            refused = error if isinstance(error, HTTPException) else _refused(507, DISK)
            body = {"detail": refused.detail}
            await JSONResponse(body, refused.status_code, refused.headers)(scope, receive, answer)

    @contextmanager
    def _tab(self, scope: Scope) -> Iterator[None]:
        """While a browser has the page open, it holds on to a request that names its session."""
        _, open_page, session = scope["path"].partition("/heartbeat/")
        tabs = scope["app"].blocks.tabs
        tabs.update([session] if open_page else [])
        try:
            yield
        finally:
            if open_page:
                tabs[session] -= 1
                if not tabs[session]:
                    del tabs[session]


def _bounded(receive: Receive, most: int, seconds: float) -> Receive:
    """``receive``, which counts a body and has an end."""
    came, whole = 0, False
    now = asyncio.get_running_loop().time
    end = now() + seconds

    async def bounded() -> Message:
        nonlocal came, whole
        if whole:  # what is waited for now is that the client leaves
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, end - now()))
        except asyncio.TimeoutError:
            text = f"what was sent took over {seconds:g} s to come; send it again"
            raise _refused(408, text) from None
        whole = not message.get("more_body", False)
        came += len(message.get("body", b""))
        if came > most:
            raise _too_much(most)
        return message

    return bounded


def _too_much(most: int) -> HTTPException:
    text = f"what was sent is too large; at most {most / 1e6:g} MB are taken at once"
    return _refused(413, text)


def _refused(status: int, text: str) -> HTTPException:
    """Said, and the connection is closed, as more of the body may be on its way."""
    return HTTPException(status, text, {"Connection": "close"})
