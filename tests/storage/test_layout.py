from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.scheduler.errors import UsageError
from umbel.storage import layout
from umbel.storage.objects.interface import check_path


@pytest.mark.parametrize("name", ["gdp", "a", "_x", "0", "a.b-c_d", "x" * 100])
def test_good_names(name: str) -> None:
    layout.check_name("run", name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("a/b", "a-b"),
        ("../x", "x"),
        (".hidden", "hidden"),
        ("-n", "n"),
        ("my run!", "my-run"),
        ("x" * 101, "x" * 100),
        ("naïve\n", "na-ve"),
    ],
)
def test_bad_names_get_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(UsageError, match="name of a run") as caught:
        layout.check_name("run", name)
    assert repr(suggestion) in (caught.value.hint or "")
    layout.check_name("run", suggestion)


@pytest.mark.parametrize("name", ["", "/", "日本"])
def test_names_without_a_suggestion(name: str) -> None:
    with pytest.raises(UsageError):
        layout.check_name("sweep", name)


@given(st.text())
def test_a_checked_name_is_safe_in_every_path(name: str) -> None:
    try:
        layout.check_name("run", name)
    except UsageError:
        return
    for path in (layout.record(name), layout.segment(layout.trials_folder(name, name), 3), layout.owner(name, 1)):
        check_path(path)


def test_numbers_of_segments() -> None:
    paths = ["f/00000002.parquet", "f/00000010.parquet", "f/00000003.parquet.corrupt", "f/x.parquet", "f/1.parquet"]
    assert layout.numbered(paths) == [(2, "f/00000002.parquet"), (10, "f/00000010.parquet")]
    assert layout.numbered(["f/00000001.parquet", "f/100000000.parquet"])[-1][0] == 100_000_000
    assert layout.segment_number("f/00000003.parquet.corrupt-2") == (3, True)
    assert layout.segment_number("f/run.json") is None
