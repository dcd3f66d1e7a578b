"""The card of a model that goes to a hub: README.md, of facts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aim._version import __version__
from aim.checks import quoted
from aim.errors import InvalidInput

TAGS = ["autoregressive", "class-conditional", "image-generation"]
KINDS = {"AiM": "a Mamba-2 decoder", "Transformer": "a Transformer decoder"}


def card(repo: str, facts: Mapping[str, Any], layout: str, license: str | None) -> str:
    """Markdown with the hub's YAML on top, of ``describe``'s ``facts``.

    ``license`` is an identifier of the hub's ("mit", "cc-by-nc-4.0", "other"); InvalidInput for
    what cannot be one.
    """
    from huggingface_hub import ModelCardData

    if license is not None and not (license.replace("-", "").replace(".", "").isalnum()):
        raise InvalidInput(
            f"license is {quoted(license)}; it must be an identifier such as mit or cc-by-nc-4.0"
        )
    tokenizer, about = facts["tokenizer"], facts.get("about", {})
    stated = license or ("other" if "license" in about else None)
    tags = [*TAGS, "mamba" if facts["kind"] == "AiM" else "transformer"]
    data = ModelCardData(license=stated, tags=tags, pipeline_tag="unconditional-image-generation")
    rows = {
        "model": f"{facts['kind']}, {facts['layers']} layers of {facts['width']}",
        "parameters": f"{facts['parameters']:,}",
        "classes": f"{facts['classes']:,}, {facts['classes_are']}",
        "picture": f"{tokenizer['pixels_out']}x{tokenizer['pixels_out']} pixels, a grid of "
        f"{tokenizer['grid']}x{tokenizer['grid']} codes out of {tokenizer['codebook']:,}",
        "tokenizer": f"{tokenizer['parameters']:,} parameters, version {tokenizer['version']}",
        "sampling": facts["sampling"],
        "version": facts["version"],
        "written by": f"aim {__version__}, in the layout {layout!r}",
        **{name: text for name, text in about.items() if name not in ("tokenizer", "storage")},
    }
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in rows.items())
    return f"""---
{data.to_yaml()}
---

# {repo.partition("/")[2]}

Draws pictures of classes code by code, with {KINDS[facts["kind"]]}.

```python
import aim

pipe = aim.load("{repo}")
pipe.generate([pipe.classes[0]], seed=0)[0].save("picture.png")
```

| | |
|---|---|
{table}
"""


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
