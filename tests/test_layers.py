"""The shape of the house: who may import whom, and what every module owes its reader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (  # low to high; a module may import its own layer and those before it
    {
        "_version",
        "checks",
        "classes",
        "config",
        "settings",
        "errors",
        "files",
        "kinds",
        "parameters",
        "schedules",
        "tables",
        "device",
        "images",
    },
    {"ops"},
    {"models"},
    {"checkpoint", "sampling"},
    {"ahead"},
    {"engine"},
    {"stream", "codec", "pipeline", "compare"},
    {"serving"},
    {"", "training", "evaluation", "bench"},  # "" is aim/__init__.py, the public names
    {"ui"},
    {"cli", "__main__", "app"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NEVER = {  # what the layers alone would allow
    "sampling": {"models", "checkpoint"},
    "training": {"engine", "pipeline"},
    "engine.requests": {"models", "checkpoint", "sampling"},
    "engine.scheduler": {"models", "checkpoint", "sampling"},
}
OWNERS = {  # third-party packages that only some places may import
    "gradio": {"ui", "app"},
    "accelerate": {"training"},
    "triton": {"ops"},
    "mamba_ssm": {"ops"},
    "causal_conv1d": {"ops"},
    "ray": {"serving"},
    "diffusers": {"bench"},
}
FILES = sorted((ROOT / "aim").rglob("*.py"))
SOURCES = [*FILES, ROOT / "app.py"]


def name_of(path: Path) -> str:
    """Dotted, without the package: "" for aim/__init__.py, "models.vq.model" for
    aim/models/vq/model.py, "app" for app.py.
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "aim" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


def top(name: str) -> str:
    return name.partition(".")[0]


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def imports(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in it: `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(imported: str) -> str | None:
    """The module of ours that a dotted name lies in, None for others: aim.models.vq.model.VQ is
    "models.vq".
    """
    package, _, name = imported.partition(".")
    if package != "aim":
        return None
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def violations(name: str, tree: ast.Module) -> list[str]:
    """Imports that the rules above forbid, each in words."""
    found = []
    for imported in imports(tree):
        target = ours(imported)
        if target is None:
            if top(imported) in OWNERS and top(name) not in OWNERS[top(imported)]:
                found.append(f"{top(imported)} belongs to {sorted(OWNERS[top(imported)])}")
            continue
        if LEVEL[top(target)] > LEVEL[top(name)]:
            found.append(f"{target or 'the public names'} lies above {name or 'the public names'}")
        banned = {
            place for owner, places in NEVER.items() if within(name, owner) for place in places
        }
        found += [f"{name} must not know {target}" for place in banned if within(target, place)]
    return found


def public_without_docstring(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if not isinstance(
            child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ) or child.name.startswith("_"):
            continue
        described_elsewhere = {ast.unparse(d).rpartition(".")[2] for d in child.decorator_list} & {
            "overload",
            "override",
            "setter",
        }
        if not described_elsewhere and not ast.get_docstring(child):
            yield f"{child.name} (line {child.lineno})"
        if isinstance(child, ast.ClassDef):
            yield from public_without_docstring(child)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEverySourceFile:
    def test_imports_go_one_way(self, path: Path) -> None:
        name = name_of(path)
        assert top(name) in LEVEL, (
            f"{path} is in no layer; give it one in this test and in docs/architecture.md"
        )
        assert violations(name, parsed(path)) == []

    def test_is_documented(self, path: Path) -> None:
        tree = parsed(path)
        assert ast.get_docstring(tree), "the module has no docstring"
        assert list(public_without_docstring(tree)) == []

    def test_is_short(self, path: Path) -> None:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def opens_images(tree: ast.Module) -> bool:
    """Whether a module calls Pillow's open, by whatever name it imports it."""
    return "PIL.Image.open" in imports(tree) or any(
        isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[-2:] == ["Image", "open"]
        for node in ast.walk(tree)
    )


def test_images_are_opened_in_one_place() -> None:
    found = {name_of(path) for path in SOURCES if opens_images(parsed(path))}
    assert found == {"images.read"}


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.open(1)",
        "import PIL\nPIL.Image.open(1)",
        "from PIL.Image import open",
    ],
)
def test_a_second_place_is_seen(source: str) -> None:
    assert opens_images(ast.parse(source))


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, wherever in them the import is: sets of two and more."""

    def reached(name: str) -> set[str]:
        found: set[str] = set()
        left = [name]
        while left:
            new = graph.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    after = {name: reached(name) for name in graph}
    together = {
        frozenset(other for other in after[name] if name in after.get(other, ())) for name in graph
    }
    return sorted(sorted(names) for names in together if len(names) > 1)


def test_no_modules_import_each_other() -> None:
    graph = {
        name_of(path): {
            target
            for imported in imports(parsed(path))
            if (target := ours(imported)) is not None and target != name_of(path)
        }
        for path in FILES
    }
    assert circles(graph) == []


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "b"}}) == [["b", "c"]]


@pytest.mark.parametrize("name", ["engine.requests", "engine.scheduler"])
def test_the_schedule_knows_no_tensors(name: str) -> None:
    tree = parsed(ROOT / "aim" / (name.replace(".", "/") + ".py"))
    assert "torch" not in {top(imported) for imported in imports(tree)}


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("models.vq", "from aim.pipeline import Pipeline", "lies above"),
        ("models.vq", "def f():\n    import aim.engine", "lies above"),
        ("sampling", "from aim.models import aim", "must not know"),
        ("pipeline", "from aim import load", "lies above"),
        ("pipeline", "import gradio as gr", "belongs to"),
        ("models.aim.mamba2", "from mamba_ssm.ops import scan", "belongs to"),
    ],
)
def test_the_rules_see_a_breach(name: str, source: str, complaint: str) -> None:
    found = violations(name, ast.parse(source))
    assert len(found) == 1
    assert complaint in found[0]


def test_the_rules_allow_what_is_meant() -> None:
    source = (
        "from aim import config\nfrom aim.config import AiMConfig\nfrom "
        "aim.models.vq.model import VQ\nimport torch"
    )
    assert violations("engine.engine", ast.parse(source)) == []
    assert violations("ui.page", ast.parse("import gradio\nimport aim")) == []
