"""How the command line shows tables: to people by Rich, to programs as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["json_text", "print_rows", "terminal_width"]


def json_text(value: object) -> str:
    """Valid JSON: times in ISO 8601, and NaN and infinities as the strings "NaN", "Infinity", "-Infinity"."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


def print_rows(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    *,
    title: str | None = None,
    limit: int | None = None,
    cut: str | None = None,
) -> None:
    """Print some columns of some rows as a table; says how many rows are left out.

    Args:
        rows: the rows.
        columns: the columns that are shown.
        title: stands above.
        limit: rows that are shown at most.
        cut: a column whose texts are cut off at a terminal's edge; elsewhere lines are as long as they are.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=None, pad_edge=False)
    shown = list(rows[:limit] if limit else rows)
    cells = [[name, *(_cell(row.get(name)) for row in shown)] for name in columns]
    console = Console()
    if cut is None:
        widths = _widths(cells, terminal_width())
    else:
        whole = [max(map(len, texts)) for texts in cells]
        too_many = sum(whole) + 2 * (len(columns) - 1) - terminal_width()
        if not console.is_terminal:
            console = Console(width=sum(whole) + 2 * len(columns))
        elif too_many > 0:
            place = columns.index(cut)
            whole[place] = max(len(cut), whole[place] - too_many)
        widths = [*whole]
    for name, width in zip(columns, widths, strict=True):
        number = any(isinstance(row.get(name), (int, float)) for row in shown)
        table.add_column(
            name,
            justify="right" if number else "left",
            overflow="ellipsis" if name == cut else "fold",
            no_wrap=cut is not None,
            width=width,
        )
    for row in shown:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    if title is not None:
        console.print(Text(title, style="italic"), soft_wrap=True)
    console.print(table)
    if len(rows) > len(shown):
        console.print(f"… and {len(rows) - len(shown):,} more (--limit 0 shows all, --json too)", style="dim")


def terminal_width() -> int:
    """How many columns a table may take; 80 where there is no terminal."""
    from rich.console import Console

    return Console().width


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int | None]:
    """How wide columns are, such that none breaks within a word; None: as Rich finds best."""
    from rich.cells import cell_len

    whole = [max(cell_len(line) for cell in cells for line in cell.splitlines() or [""]) for cells in columns]
    words = [max(cell_len(word) for cell in cells for word in cell.split() or [""]) for cells in columns]
    room = width - 2 * (len(columns) - 1)
    if sum(whole) <= room or sum(words) > room:
        return [None] * len(columns)
    spare = room - sum(words)
    found: dict[int, int] = {}
    for place in sorted(range(len(columns)), key=lambda place: whole[place] - words[place]):  # who needs least, first
        more = min(whole[place] - words[place], spare // (len(columns) - len(found)))
        found[place] = words[place] + more
        spare -= more
    return [found[place] for place in range(len(columns))]


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.5g}"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case _:
            return str(value)
