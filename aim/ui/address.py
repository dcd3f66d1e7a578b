"""Where a page listens and what it calls itself, in the form that Gradio takes."""

from __future__ import annotations

from collections.abc import MutableMapping

LOCAL = ("localhost", "127.0.0.1", "::1")


def host(name: str | None) -> str | None:
    """An address to listen on; an IPv6 one stands in brackets."""
    return f"[{name}]" if name and ":" in name and not name.startswith("[") else name


def root(path: str) -> str:
    """The path below which a proxy shows the page: empty, or with a slash before it and none
    behind; the address of a proxy as it is.
    """
    path = path.strip().rstrip("/")
    return path if not path or "://" in path else "/" + path.lstrip("/")


def reach_itself(environ: MutableMapping[str, str]) -> None:
    """Except this machine from the proxies of the environment: Gradio asks its own server whether
    it is up.
    """
    for name in ("no_proxy", "NO_PROXY"):
        known = [part.strip() for part in environ.get(name, "").split(",") if part.strip()]
        if "*" not in known:
            environ[name] = ",".join(dict.fromkeys([*known, *LOCAL]))
