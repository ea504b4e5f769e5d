"""How is a lineage shown: as lines of text, as a picture, as a page? Without any package, and without the store."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.storage.lineage.tree import Lineage

__all__ = ["as_html", "as_svg", "as_text", "fact_text"]

#: Facts that a line or a box shows, in this order, as many as fit; a page shows all.
_TOLD = {
    "trial": ("status", "model"),
    "value": ("status", "format", "size"),
    "source": ("rows", "files", "query"),
    "code": ("commit", "changed since"),
    "run": ("created", "user", "host"),
    "environment": ("python", "system", "packages", "image"),
    "node": ("distinct values",),
}
_COLOURS = {
    "trial": "#dbeafe",
    "model": "#bfdbfe",
    "value": "#e0f2fe",
    "node": "#e0f2fe",
    "source": "#dcfce7",
    "argument": "#ecfccb",
    "config": "#fef9c3",
    "code": "#ede9fe",
    "run": "#f1f5f9",
    "environment": "#f1f5f9",
    "more": "#ffffff",
}
_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y = 240, 50, 56, 12
_LINE = 31


def as_text(root: Lineage) -> str:
    """One line a thing; what went into it is below, indented. What was shown before is only named again."""
    lines: list[str] = []
    shown: set[int] = set()
    # (thing, what stands before it, what stands before what went into it); a stack, since chains may be long.
    stack: list[tuple[Lineage, str, str]] = [(root, "", "")]
    while stack:
        thing, before, below = stack.pop()
        again = id(thing) in shown and bool(thing.inputs)
        shown.add(id(thing))
        lines.append(before + _line(thing) + (" (see above)" if again else ""))
        if again:
            continue
        last = len(thing.inputs) - 1
        for position, item in reversed(list(enumerate(thing.inputs))):
            corner, edge = ("└─ ", "   ") if position == last else ("├─ ", "│  ")
            stack.append((item, below + corner, below + edge))
    return "\n".join(lines)


def _line(thing: Lineage) -> str:
    parts = [thing.name]
    if thing.digest:
        parts.append(thing.digest[:12])
    told = _told(thing)
    return "  ".join(parts) + (f"  ({', '.join(told)})" if told else "")


def _told(thing: Lineage) -> list[str]:
    facts = dict(thing.facts)
    if thing.kind in ("config", "trial"):
        hidden = ("attempt", "started", "host", "data", "model")
        return [f"{key} {fact_text(value)}" for key, value in facts.items() if key not in hidden]
    return [_fact(key, facts[key]) for key in _TOLD.get(thing.kind, ()) if key in facts and facts[key] is not False]


def _fact(key: str, value: Any) -> str:
    if value is True:
        return key
    if key in ("rows", "files", "packages", "distinct values"):
        return f"{value:,} {key[:-1] if value == 1 else key}"
    if key == "size":
        return _size_text(value)
    if key == "commit":
        return f"commit {str(value)[:12]}"
    if key == "python":
        return f"Python {value}"
    return fact_text(value)


def fact_text(value: Any) -> str:
    """A fact for people: numbers with few digits, times without fractions, no more than 80 characters."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%S}"
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key} {fact_text(inner)}" for key, inner in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        text = ", ".join(map(fact_text, value))
    else:
        text = str(value)
        text = text[:19].replace("T", " ") if len(text) > 19 and text[4:5] == "-" and text[10:11] == "T" else text
    return text if len(text) <= 80 else text[:79] + "…"


def _size_text(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


# ---- the picture -----------------------------------------------------------------------------------------------


def as_svg(root: Lineage) -> str:
    """Boxes in columns: the thing itself on the right, what went into it to its left, each thing once."""
    column = _columns(root)
    things = sorted(root.walk(), key=lambda thing: column[id(thing)])
    height: dict[int, int] = {}
    place: dict[int, tuple[float, float]] = {}
    depth = max(column.values())
    for thing in things:
        level = column[id(thing)]
        row = height.get(level, 0)
        height[level] = row + 1
        place[id(thing)] = (depth - level) * (_BOX_WIDTH + _GAP_X) + 8, row * (_BOX_HEIGHT + _GAP_Y) + 8
    tallest = max(height.values())
    for thing in things:  # each column in the middle
        x, y = place[id(thing)]
        place[id(thing)] = x, y + (tallest - height[column[id(thing)]]) * (_BOX_HEIGHT + _GAP_Y) / 2
    parts = [_edge(place[id(item)], place[id(thing)]) for thing in things for item in thing.inputs]
    parts += [_box(thing, *place[id(thing)]) for thing in things]
    width = (depth + 1) * (_BOX_WIDTH + _GAP_X) - _GAP_X + 16
    total = tallest * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{html.escape(root.name)}">'
        f"{''.join(parts)}</svg>"
    )


def _columns(root: Lineage) -> dict[int, int]:
    """How many steps each thing is away from the root, on the longest way."""
    order = _inputs_last(root)
    column = {id(thing): 0 for thing in order}
    for thing in order:
        for item in thing.inputs:
            column[id(item)] = max(column[id(item)], column[id(thing)] + 1)
    return column


def _inputs_last(root: Lineage) -> list[Lineage]:
    """All things, each before those that went into it."""
    ordered: list[Lineage] = []
    seen: set[int] = set()
    stack: list[tuple[Lineage, bool]] = [(root, False)]
    while stack:
        thing, expanded = stack.pop()
        if expanded:
            ordered.append(thing)
        elif id(thing) not in seen:
            seen.add(id(thing))
            stack.append((thing, True))
            stack.extend((item, False) for item in thing.inputs if id(item) not in seen)
    return ordered[::-1]


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    x0, y0 = start[0] + _BOX_WIDTH, start[1] + _BOX_HEIGHT / 2
    x1, y1 = end[0], end[1] + _BOX_HEIGHT / 2
    middle = (x0 + x1) / 2
    path = f"M{x0:g} {y0:g} C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}"
    return f'<path d="{path}" fill="none" stroke="#94a3b8"/>'


def _box(thing: Lineage, x: float, y: float) -> str:
    told = ", ".join(_told(thing))
    second = " · ".join(text for text in (thing.digest[:10] if thing.digest else "", told) if text)
    title = html.escape("\n".join([thing.name, *([thing.digest] if thing.digest else []), *_all_facts(thing)]))
    return (
        f'<g><title>{title}</title><rect x="{x:g}" y="{y:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" '
        f'fill="{_COLOURS.get(thing.kind, "#ffffff")}" stroke="#475569"/>'
        f'<text x="{x + 10:g}" y="{y + 20:g}" font-weight="600">{html.escape(_short(thing.name))}</text>'
        f'<text x="{x + 10:g}" y="{y + 38:g}" fill="#475569">{html.escape(_short(second))}</text></g>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _LINE else text[: _LINE - 1] + "…"


def _all_facts(thing: Lineage) -> list[str]:
    return [f"{key}: {fact_text(value)}" for key, value in thing.facts]


def as_html(root: Lineage) -> str:
    """A page that needs nothing else: the picture, and under it every thing with all its facts."""
    rows = []
    for thing in root.walk():
        facts = "<br>".join(html.escape(line) for line in _all_facts(thing))
        digest = f"<code>{html.escape(thing.digest)}</code>" if thing.digest else ""
        rows.append(
            f"<tr><td>{html.escape(thing.kind)}</td><td>{html.escape(thing.name)}</td><td>{digest}</td>"
            f"<td>{facts}</td></tr>"
        )
    style = (
        "body{font-family:system-ui,sans-serif;margin:2em}table{border-collapse:collapse}"
        "td{border-top:1px solid #cbd5e1;padding:.4em .8em;vertical-align:top;font-size:13px}"
        "figure{margin:0 0 2em;overflow-x:auto}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(root.name)}</title>'
        f"<style>{style}</style></head><body><h1>{html.escape(root.name)}</h1><figure>{as_svg(root)}</figure>"
        f"<table>{''.join(rows)}</table></body></html>"
    )
