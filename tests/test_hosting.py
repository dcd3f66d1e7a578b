"""What the guide for hosting and the container promise, as far as it can be checked without
either.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_variable_that_is_read_is_listed() -> None:
    table = read("docs/hosting.md").partition("## Settings")[2].partition("##")[0]
    used = set(re.findall(r'"(AIM_[A-Z_]+|HF_[A-Z]+|SPACES_[A-Z_]+)"', read("aim/settings.py")))
    assert {"AIM_MODEL", "AIM_MCP", "SPACES_ZERO_GPU"} <= used
    assert used <= set(re.findall(r"`([A-Z_]+)`", table))


def test_the_container_copies_what_is_there_and_what_the_page_needs() -> None:
    copied = [
        path
        for line in re.findall(r"^COPY (?:--\S+ )?(.+)$", read("Dockerfile"), re.MULTILINE)
        for path in line.split()[:-1]
    ]
    assert set(copied) == {"app.py", "aim", "checkpoints", "requirements.txt"}
    assert all((ROOT / path).exists() for path in copied)
    kept = re.findall(r"^!(.+)$", read(".dockerignore"), re.MULTILINE)
    assert set(kept) == set(copied), "what is ignored cannot be copied"


def test_the_container_runs_without_rights_and_is_watched() -> None:
    text = read("Dockerfile")
    assert text.index("USER aim") < text.index("CMD [")
    assert "/healthz" in text.partition("HEALTHCHECK")[2]
    assert re.search(r"EXPOSE 7860\b", text)


def test_the_space_runs_the_page() -> None:
    head = read("README.md").split("---")[1]
    assert "sdk: gradio" in head and "app_file: app.py" in head
    assert "demo = build(" in read("app.py")
