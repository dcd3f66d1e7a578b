"""Every example of docs/api.md, run against a page as it is written there; and nothing is missing
from its table.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pages import Page

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"
HERE = "http://127.0.0.1:7860"


def example(language: str, page: Page) -> str:
    [code] = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert HERE in code
    return str(code).replace(HERE, page.url.rstrip("/"))


def test_every_endpoint_is_in_the_table(page: Page) -> None:
    api = page.blocks.get_api_info()
    told = set(
        re.findall(r"`(/[a-z_]+)`", DOCS.read_text(encoding="utf-8").partition("A class is")[0])
    )
    assert told == set(api["named_endpoints"])


def test_python(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    exec(compile(example("python", page), str(DOCS), "exec"), found)
    assert (found["parameters"]["class"], found["parameters"]["seed"]) == (1, 7)
    assert "done 256 of 256" in capsys.readouterr().out
    assert found["progress"]["state"] == "done"
    assert Path(found["completed"]).is_file() and Path(found["png"]).is_file()
    assert "goldfish (1)" in found["titles"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(page: Page) -> None:
    done = subprocess.run(
        ["sh", "-c", example("sh", page)], capture_output=True, text=True, timeout=60, check=True
    )
    last = done.stdout.strip().split("\n\n")[-1]
    assert last.startswith("event: complete")
    parameters = json.loads(last.partition("data: ")[2])[4]
    assert (parameters["class_name"], parameters["seed"]) == ("goldfish", 7)


def test_javascript(page: Page, browser: Any) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(page.url)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.evaluate(f"async () => {{ {example('js', page)} }}")
    context.close()
    assert any(line.startswith("goldfish 7 ") and "/gradio_api/file=" in line for line in said), (
        said
    )
