"""Functions that differ, cut out of stored sources."""

from __future__ import annotations

from umbel.runtime.answers.code_changes import code_changes, source_of

OLD = """
LAGS = 3

def helper(x):
    # a comment
    return x + LAGS

class Model:
    def fit(self, x):
        return x

    class Inner:
        width = 1

if True:
    def conditional():
        return 1
"""


def test_a_function_is_found_by_its_name() -> None:
    files = {"src/project/model.py": OLD, "project/__init__.py": "VERSION: int = 1\n", "other/model.py": ""}
    assert source_of("project.model.helper", files) == "def helper(x):\n    # a comment\n    return x + LAGS"
    assert source_of("model.Model.fit", files) == "    def fit(self, x):\n        return x"
    assert source_of("project.model.Model.Inner", files) == "    class Inner:\n        width = 1"
    assert source_of("project.model.LAGS", files) == "LAGS = 3"
    assert source_of("project.VERSION", files) == "VERSION: int = 1"
    assert source_of("project.model.conditional", files) == "    def conditional():\n        return 1"
    assert source_of("project.model.helper(default 0)", files) == source_of("project.model.helper", files)
    assert source_of("project.model.missing", files) is None
    assert source_of("elsewhere.helper", files) == source_of("project.model.helper", files)
    assert source_of("elsewhere.helper", {**files, "other/model.py": OLD}) is None
    assert source_of("model.helper", {"model.py": "not python ("}) is None


def test_decorators_and_local_functions() -> None:
    files = {"m.py": "@task\n@other(\n  1)\ndef f():\n    def g():\n        pass\n"}
    found = source_of("m.f", files)
    assert found is not None
    assert found.startswith("@task")
    assert source_of("m.f.<locals>.g", files) == "    def g():\n        pass"


def test_what_changed_came_and_went() -> None:
    new = OLD.replace("return x + LAGS", "return x - LAGS").replace("if True:", "def added():\n    pass\n\nif True:")
    before = {"model.helper": "1", "model.Model": "2", "model.Model.fit": "3", "model.gone": "4", "model.same": "5"}
    after = {"model.helper": "9", "model.Model": "8", "model.Model.fit": "7", "model.added": "6", "model.same": "5"}
    found = code_changes(before, after, {"model.py": OLD}, {"model.py": new})
    assert [(change.name, change.how) for change in found] == [
        ("model.Model.fit", "changed"),  # and not the class around it
        ("model.added", "new"),
        ("model.gone", "gone"),
        ("model.helper", "changed"),
    ]
    helper = found[-1].diff.splitlines()
    assert "-    return x + LAGS" in helper
    assert "+    return x - LAGS" in helper
    assert found[0].diff == ""  # its sources are equal: a value that it uses differs


def test_without_sources_the_names_are_told() -> None:
    (found,) = code_changes({"a.f": "1"}, {"a.f": "2"}, {}, {"a.py": "def f():\n    pass\n"})
    assert (found.name, found.diff) == ("a.f", "")


def test_the_same_function_in_a_file_of_another_name() -> None:
    before = {"forecast.fit": "1", "forecast.Model": "2", "forecast.Model.fit": "3", "forecast.LAGS": "4"}
    moved = {name.replace("forecast", "later.forecast2"): digest for name, digest in before.items()}
    assert code_changes(before, moved, {}, {}) == []
    changed = {**moved, "later.forecast2.LAGS": "9"}
    (found,) = code_changes(before, changed, {"forecast.py": "LAGS = 3\n"}, {"later/forecast2.py": "LAGS = 4\n"})
    assert (found.name, found.how) == ("later.forecast2.LAGS", "changed")
    assert found.diff.splitlines()[:2] == ["--- a/forecast.LAGS", "+++ b/later.forecast2.LAGS"]
    assert "-LAGS = 3" in found.diff


def test_functions_of_one_name_are_not_taken_for_one_another() -> None:
    before = {"a.fit": "1", "b.fit": "2"}
    found = code_changes(before, {"c.fit": "3", "d.fit": "4"}, {}, {})
    assert {(each.name, each.how) for each in found} == {
        ("a.fit", "gone"),
        ("b.fit", "gone"),
        ("c.fit", "new"),
        ("d.fit", "new"),
    }
    assert code_changes(before, {"c.fit": "1", "d.fit": "2"}, {}, {}) == []
