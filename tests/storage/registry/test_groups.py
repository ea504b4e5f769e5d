"""The text of a group: readable, never a path, and different for different groups."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.storage.layout import is_name
from umbel.storage.objects.interface import check_path
from umbel.storage.registry.groups import find_group, group_text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "all"),
        (["AUT"], "AUT"),
        (["Côte d'Ivoire"], "Côte d'Ivoire"),
        ([5], "5"),
        ([0.5], "0.5"),
        ([True], "true"),
        (["a", 3, False], "a,3,false"),
        (["a,b"], "a,b"),
        (["a,b", "c"], "a%2Cb,c"),
        (["a/b"], "a%2Fb"),
        (["a\\b"], "a%5Cb"),
        (["50%"], "50%25"),
        ([".."], "%2E."),
        (["a\nb"], "a%0Ab"),
        (["a:predict"], "a:predict"),
    ],
)
def test_texts(values: list[Any], text: str) -> None:
    assert group_text(values) == text


@given(st.lists(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=2), unique_by=tuple, max_size=5))
def test_different_groups_have_different_texts_that_are_no_paths(groups: list[list[str]]) -> None:
    texts = [group_text(group) for group in groups]
    assert len(set(texts)) == len(texts)
    for text in texts:
        check_path(text)
        assert "/" not in text
        assert quote(text, safe="", errors="replace")
    assert all(is_name(text) or text for text in texts)


@pytest.mark.parametrize("values", [[""], ["a", ""], ["x" * 501]])
def test_what_can_not_be_named(values: list[str]) -> None:
    with pytest.raises(UsageError, match="URL"):
        group_text(values)


def test_groups_are_found_by_text_or_values() -> None:
    known = {group_text(values): place for place, values in enumerate([["a/b", 1], ["c", 2]])}
    for name in ("a%2Fb,1", {"x": "a/b", "y": 1}, {"y": 1, "x": "a/b"}, ("a/b", 1)):
        assert find_group(name, ("x", "y"), known, "it") == 0
    assert find_group(5, ("x",), {"5": 3}, "it") == 3
    assert find_group("a/b", ("x",), {"a%2Fb": 3}, "it") == 3
    with pytest.raises(NotFoundError, match="did you mean 'c,2'"):
        find_group("c,3", ("x", "y"), known, "it")
    with pytest.raises(NotFoundError, match="named by its keys"):
        find_group({"x": 1}, ("x", "y"), known, "it")
