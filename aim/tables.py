"""Results for people: plain tables, one look for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Column, Table


def plain(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str | None = None,
    left: int = 1,
) -> Table:
    """``rows`` of texts below ``heads``, of which the first ``left`` stand to the left, figures to
    the right.
    """
    columns = [
        Column(head, justify="left" if i < left else "right") for i, head in enumerate(heads)
    ]
    table = Table(
        *columns, title=title, caption=caption, title_justify="left", caption_justify="left"
    )
    for row in rows:
        table.add_row(*row)
    return table
