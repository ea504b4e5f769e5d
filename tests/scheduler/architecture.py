"""Writes the parts of `docs/architecture.md` that follow from the code; a test holds the document to them.

python -m tests.scheduler.architecture
"""

from __future__ import annotations

from pathlib import Path

from umbel.scheduler.transitions import command_table, event_table, state_diagram

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def with_generated_parts(text: str) -> str:
    """A document with the parts between its markers made anew.

    Raises:
        ValueError: a marker is missing.
    """
    parts = {
        "events": event_table(),
        "commands": command_table(),
        "states": f"```mermaid\n{state_diagram()}\n```",
    }
    for name, part in parts.items():
        begin, end = f"<!-- {name}: python -m tests.scheduler.architecture -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"there must be one place for the {name}, between {begin} and {end}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_generated_parts(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
