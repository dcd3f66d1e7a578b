"""What stands in two places says the same in both, and the project speaks of nothing but itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import aim
from aim.config import MODELS, ModelSpec
from aim.models.prior import build

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SPACE_COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
FOREIGN = {  # spelled so that this file does not match itself
    "a path of one machine": re.compile(r"(?<![\w.:/])/(?:hom[e]|roo[t]|wor[k]|far[m]|mn[t])/\w"),
    "a package registry's host": re.compile(
        r"(?:py[p]i|python[h]osted|npm[j]s|download\.py[t]orch|deb\.deb[i]an)\.(?:org|com)"
    ),
    "an unfinished note": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"),
}


def requirements(name: str) -> set[Requirement]:
    lines = (
        line.partition("#")[0].strip()
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    )
    return {Requirement(line) for line in lines if line and not line.startswith("-")}


def tracked() -> list[Path]:
    """Files under version control, and those about to be; every file where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = (
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            .stdout.decode()
            .split("\0")
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so nothing says which files are the project's")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def space() -> dict[str, Any]:
    """The front matter by which a Hugging Face Space runs this repository."""
    _, matter, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(matter)


def dependency(name: str) -> Requirement:
    return next(r for r in requirements("requirements.txt") if r.name == name)


def test_requirements_agree() -> None:
    assert requirements("requirements.txt") == {
        Requirement(r) for r in PROJECT["project"]["dependencies"]
    }
    assert requirements("requirements-cuda.txt") == {
        Requirement(r) for r in PROJECT["project"]["optional-dependencies"]["cuda"]
    }
    text = (ROOT / "requirements-cuda.txt").read_text(encoding="utf-8")
    assert [
        r
        for r in PROJECT["project"]["optional-dependencies"]["mamba-ssm"]
        if f"# {r}\n" not in text
    ] == []


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        (
            "aim",
            (
                "cuda",
                "diffusion",
                "mamba-ssm",
                "perceptual",
                "report",
                "semantic",
                "serve",
                "train",
            ),
        ),
        ("tests", ("test",)),
    ],
)
def test_every_package_that_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    declared = PROJECT["project"]["dependencies"] + [
        r for extra in extras for r in PROJECT["project"]["optional-dependencies"][extra]
    ]
    names = {canonicalize_name(Requirement(r).name) for r in declared}
    files = list((ROOT / folder).rglob("*.py"))
    local = {"aim", "tests", *(path.stem for path in files), *sys.stdlib_module_names, "tomli"}
    imported: set[str] = set()
    for node in (
        node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    owners = packages_distributions()
    providers = {
        name: {canonicalize_name(dist) for dist in owners.get(name, [name])}
        for name in imported - local
    }
    assert [name for name, dists in sorted(providers.items()) if not dists & names] == []


def test_the_version_has_one_source() -> None:
    source = PROJECT["tool"]["hatch"]["version"]["path"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    declared = re.findall(
        r'^__version__ = "(.+)"$', (ROOT / source).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert declared == [aim.__version__]
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "aim").rglob("*.py")}
    assert [
        path for path, text in texts.items() if re.search(r"^__version__\s*=", text, re.MULTILINE)
    ] == [ROOT / source]


def test_the_space_runs_what_the_tests_run(space: dict[str, Any]) -> None:
    assert space["sdk"] == "gradio"
    assert isinstance(space["sdk_version"], str), "YAML reads an unquoted 6.30 as 6.3"
    assert space["sdk_version"] in dependency("gradio").specifier
    assert space["python_version"] in SpecifierSet(PROJECT["project"]["requires-python"])
    assert (ROOT / space["app_file"]).is_file()


def test_the_space_card_is_valid(space: dict[str, Any]) -> None:
    assert space["title"]
    assert len(space["short_description"]) <= 60
    assert {space["colorFrom"], space["colorTo"]} <= SPACE_COLORS
    assert space["license"] == "mit"


def test_documents_point_at_files_that_exist() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "checkpoints" / "README.md"):
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        missing = [target for target in targets if not (page.parent / target).exists()]
        assert not missing, f"{page.name} links to {missing}"


def rooms() -> dict[str, str]:
    """The map of the house: what it says of every file and folder, by their paths."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for line in text.split("```")[1].strip().splitlines():
        named = re.match(r"( *)((?:[\w.]+/? ?)+?)(?:  +|$)", line)
        if named and len(named[1]) <= 2:
            paths = [("aim/" if named[1] else "") + path for path in named[2].split()]
        found.update(dict.fromkeys(paths, found.get(paths[0], "") + line[23:] + " "))
    return found


def test_the_map_of_the_house_has_every_room_and_no_other() -> None:
    house = [*(ROOT / "aim").glob("*.py"), *(path.parent for path in (ROOT / "aim").glob("*/*.py"))]
    expected = {str(path.relative_to(ROOT)) + "/" * path.is_dir() for path in house}
    mapped = {path for path in rooms() if path.startswith("aim/") and path != "aim/"}
    assert mapped == expected


@pytest.mark.parametrize(("room", "told"), rooms().items())
def test_the_map_of_the_house_names_files_that_are_there(room: str, told: str) -> None:
    assert (ROOT / room).exists()
    files = {*re.findall(r"\w+\.py\b", told), *re.findall(r"\w+(?=/)", told)}
    here = {path.name for path in (ROOT / room).rglob("*")} | {p.name for p in ROOT.glob("aim/*")}
    assert files - {"app.py"} <= here


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_paths_in_the_documents_are_there(page: Path) -> None:
    named = re.findall(r"`((?:[\w.]+/)+(?:[\w.]*\.\w+)?)`", page.read_text(encoding="utf-8"))
    ours = {path.name for path in (*ROOT.iterdir(), *(ROOT / "aim").iterdir()) if path.is_dir()}
    missing = [
        path
        for path in named
        if path.partition("/")[0] in ours
        and not any((folder / path).exists() for folder in (ROOT, ROOT / "aim", ROOT / "docs"))
    ]
    assert not missing


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_the_readme_s_table_is_true(spec: ModelSpec) -> None:
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{spec.name}` |")
    )
    with torch.device("meta"):
        count = sum(weight.numel() for weight in build(spec.config).parameters())
    assert f"| {count / 1e6:.3g} M |" in row if count < 1e9 else f"| {count / 1e9:.3g} B |" in row
    assert f"| {spec.tokenizer.output_size}x{spec.tokenizer.output_size} |" in row
    assert f"{spec.config.num_classes}" in row
    if spec.source == "hub":
        assert (
            f"[{spec.repo}](https://huggingface.co/{spec.repo}), {spec.download_mb / 1000:.1f} GB"
            in row
        )


def test_every_python_offered_is_allowed() -> None:
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    offered = [
        c.rpartition(" ")[2]
        for c in PROJECT["project"]["classifiers"]
        if c.startswith("Programming Language")
    ]
    assert offered == ["3.10", "3.11", "3.12", "3.13"]
    assert all(version in allowed for version in offered)
    assert "3.14" not in allowed


def test_bundled_files_are_small_enough_to_clone() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "checkpoints").iterdir()) < 90e6


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_project_speaks_of_itself_only(kind: str) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights
        found += [
            f"{path.relative_to(ROOT)}: {match.group()}" for match in FOREIGN[kind].finditer(text)
        ]
    assert not found
