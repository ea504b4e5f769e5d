"""The text that is written is read back to the data by PyYAML, whatever the texts in it look like."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from umbel.cluster.manifests.yaml_text import Noted, plain, to_yaml

characters = st.characters(codec="utf-8")
leaves = st.none() | st.booleans() | st.integers() | st.text(characters, max_size=20)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(characters, min_size=1, max_size=8), inner | inner.map(lambda each: Noted(each, "why")), max_size=3
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(characters, min_size=1, max_size=8), trees, min_size=1, max_size=4))
@example({"a": "yes", "no": "1", "b": "1e3", "c": "2020-01-01", "d": "a: b", "e": "0x1", "f": "~", "g": "1:30"})
@example({"a": "line\nline\n", "b": "\n", "c": "x\n\n", "d": " x\n", "e": "tab\t\n", "f": "a\r\nb"})
def test_what_is_written_is_read_back(tree: dict[str, Any]) -> None:
    assert yaml.safe_load(to_yaml([tree], note="a note")) == plain(tree)


def test_comments_stand_above_what_they_explain() -> None:
    tree = {"a": Noted({"b": Noted([Noted({"c": 1, "d": [2]}, "each"), "x"], "several")}, "why\nand how"), "e": {}}
    assert to_yaml([tree, {"f": "y"}], note="Top.") == (
        "# Top.\n# why\n# and how\na:\n  # several\n  b:\n"
        "    # each\n    - c: 1\n      d:\n        - 2\n    - x\ne: {}\n"
        '---\nf: "y"\n'
    )
