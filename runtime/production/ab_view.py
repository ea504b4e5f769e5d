"""How is a comparison of two versions shown: as lines of text, as a picture, as a page? Without any package."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umbel.runtime.production.ab_result import Arm, Comparison, GroupComparison, Shares

__all__ = ["as_html", "as_svg", "as_text"]

_COLOURS = {"promote": "#15803d", "keep": "#b91c1c", "not yet": "#475569"}
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 260, 76, 34, 30


def as_text(found: Comparison, *, per_group: bool = False) -> str:
    """The decision and what it rests on; with a line a group if wanted."""
    unit = "keys of callers" if found.unit == "key" else "requests"
    how = f"{unit} that both answered" if found.design == "paired" else f"{unit}, each with one of them at random"
    lines = [
        f"{found.model}: {found.champion.alias} (version {found.champion.version}) against "
        f"{found.challenger.alias} (version {found.challenger.version}), mean {found.loss} loss, by {how}",
        "",
        *_table(
            ("", "version", "chosen for", "counted", "waiting", "unusable", "mean loss"),
            [_arm_cells(arm) for arm in (found.champion, found.challenger)],
        ),
        "",
        f"difference  {_difference(found)}",
    ]
    if found.shares is not None:
        lines.append(f"shares      {_shares(found.shares)}")
    if found.outcome_shares is not None and found.shares is not None and not found.outcome_shares.ok:
        lines.append(f"outcomes    {_shares(found.outcome_shares)}")
    if found.dropped:
        lines.append(f"log         {found.dropped:,} answers were let go by replicas while the store was away")
    if found.unfit_outcomes:
        one = found.unfit_outcomes == 1
        lines.append(
            f"outcomes    {found.unfit_outcomes:,} {'is' if one else 'are'} of no use to the {found.loss} loss "
            f"(no number, say), and left out"
        )
    if per_group and found.groups:
        names = ("group", "champion", "challenger", "difference", "interval", "n", "decision")
        lines += ["", *_table(names, [_group_cells(group) for group in found.groups])]
        lines.append(f"of what is decided here, at most {found.alpha:.0%} is expected to be wrong (e-BH)")
    elif decided := [group for group in found.groups if group.decision != "not yet"]:
        better = sum(group.decision == "promote" for group in decided)
        lines.append(
            f"groups      {len(found.groups)}: better in {better}, worse in {len(decided) - better}, "
            f"open in {len(found.groups) - len(decided)} (--per-group lists them)"
        )
    return "\n".join([*lines, "", f"{found.decision}: {'; '.join(found.because)}"])


def _arm_cells(arm: Arm) -> list[str]:
    numbers = [str(arm.version), *(f"{each:,}" for each in (arm.assigned, arm.n, arm.waiting, arm.unusable))]
    return [arm.alias, *numbers, _figure(arm.mean_loss)]


def _group_cells(group: GroupComparison) -> list[str]:
    interval = "–" if group.low is None else f"[{_figure(group.low)}, {_figure(group.high)}]"
    return [
        group.group,
        _figure(group.champion_loss),
        _figure(group.challenger_loss),
        _figure(group.difference),
        interval,
        f"{group.champion_n:,}/{group.challenger_n:,}",
        group.decision,
    ]


def _difference(found: Comparison) -> str:
    if found.difference is None or found.low is None:
        return "not known yet"
    text = f"{_figure(found.difference)} in [{_figure(found.low)}, {_figure(found.high)}], at {1 - found.alpha:.0%}"
    if found.champion.mean_loss:
        text += f"; {found.difference / abs(found.champion.mean_loss):+.1%} of the champion's"
    return text + f"; p {found.p_value:.2g}, whenever looked at"


def _shares(shares: Shares) -> str:
    verdict = "as they should be" if shares.ok else "wrong"
    return (
        f"{shares.actual:.2%} for the challenger, expected {shares.expected:.2%}: {verdict} "
        f"(p {shares.p_value:.2g}, whenever looked at; chi-square {shares.chi_square_p_value:.2g})"
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(names), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


# ---- the picture -----------------------------------------------------------------------------------------------


def as_svg(found: Comparison) -> str:
    """The difference of mean losses and its interval over the units that had outcomes; a line where it is decided."""
    title = f"{found.model}: {found.challenger.alias} less {found.champion.alias}, mean {found.loss} loss"
    parts = [f'<text x="{_LEFT}" y="18" font-weight="600">{html.escape(title)}</text>']
    if found.looks:
        parts += _curves(found)
    else:
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT / 2:g}" fill="#475569">nothing to show yet</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _curves(found: Comparison) -> list[str]:
    looks = found.looks
    # The first intervals are so wide that the rest would be a line: the scale is that of the last two thirds.
    shown = looks[len(looks) // 3 :]
    bound = -found.gain
    top = max([bound, *(look.high for look in shown)])
    bottom = min([bound, *(look.low for look in shown)])
    margin = (top - bottom) * 0.08 or 1.0
    top, bottom = top + margin, bottom - margin
    last = max(look.n for look in looks)

    def x(n: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 12) * n / last

    def y(value: float) -> float:
        inside = min(top, max(bottom, value))
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (top - inside) / (top - bottom)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + " L".join(f"{x(n):.1f} {y(value):.1f}" for n, value in points)

    band = [(look.n, look.high) for look in looks] + [(look.n, look.low) for look in reversed(looks)]
    colour = _COLOURS[found.decision]
    first, final = (datetime.fromtimestamp(look.time / 1e6, UTC) for look in (looks[0], looks[-1]))
    foot = _HEIGHT - _BOTTOM
    return [
        f'<path d="{path(band)} Z" fill="{colour}" fill-opacity="0.18"/>',
        f'<path d="{path([(look.n, look.difference) for look in looks])}" fill="none" stroke="{colour}"/>',
        f'<path d="M{_LEFT} {y(bound):.1f} H{_WIDTH - 12}" stroke="#0f172a" stroke-dasharray="4 3"/>',
        f'<path d="M{_LEFT} {_TOP} V{foot} H{_WIDTH - 12}" fill="none" stroke="#94a3b8"/>',
        *(
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#475569">{value:.3g}</text>'
            for value in dict.fromkeys((top, bound, bottom))
        ),
        f'<text x="{_LEFT}" y="{_HEIGHT - 14}" fill="#475569">{first:%Y-%m-%d %H:%M}</text>',
        f'<text x="{_WIDTH - 12}" y="{_HEIGHT - 14}" text-anchor="end" fill="#475569">'
        f"{final:%Y-%m-%d %H:%M} UTC, {last:,} units: {found.decision}</text>",
    ]


def as_html(found: Comparison) -> str:
    """A part of a page: the picture, and the text with all groups."""
    return f"<figure>{as_svg(found)}</figure><pre>{html.escape(as_text(found, per_group=True))}</pre>"
