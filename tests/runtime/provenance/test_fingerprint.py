"""What changes a fingerprint of code, what does not, and what can't be sent to workers."""

from __future__ import annotations

import functools
import importlib.util
import io
import linecache
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.runtime.provenance.fingerprint import CodeFingerprint, changed, fingerprint, source_zip
from umbel.scheduler.errors import CodeError

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import the given sources, by module name, as a project of their own; returns the module ``proj``."""
    names: set[str] = set()

    def load(proj: str, **others: str) -> Any:
        folder = tmp_path_factory.mktemp("project")
        for name, text in {**others, "proj": proj}.items():
            names.add(name)
            sys.modules.pop(name, None)
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module("proj")

    yield load
    for name in names:
        sys.modules.pop(name, None)


FULL = '''
import functools
import threading
from enum import Enum

ALPHA = 3
TABLE = {"a": [1, 2.5], "b": {"x", "y"}}

class Color(Enum):
    RED = 1

def plus(n):
    def wrap(fn):
        @functools.wraps(fn)
        def inner(*args):
            return fn(*args) + n
        return inner
    return wrap

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

def doubled(x):
    return x * 2

class Base:
    def run(self):
        return doubled(1)

class Model(Base):
    """A model."""
    size = 5

    @property
    def area(self):
        return self.size ** 2

    @staticmethod
    def make():
        return Model()

def curve(x, power=2):
    return x ** power

square = functools.partial(curve, power=2)
STEPS = {"first": even, "second": lambda x: x + 1}

@functools.lru_cache
def slow(x):
    return x

@plus(1)
def decorated(x):
    return x

def unrelated(x):
    return x

def fn(config):
    """Says what it does."""
    # a comment
    inner = lambda x: x * ALPHA
    return inner(1) + len(TABLE) + Model().run() + square(2) + STEPS["second"](1) + slow(1) + decorated(2), Color.RED
'''


def edited(old: str, new: str) -> str:
    assert old in FULL
    return FULL.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # a comment\n", "    # another\n\n\n"),
        ('    """Says what it does."""\n', ""),
        ('"""A model."""', '"""Another docstring."""'),
        ("ALPHA = 3", "# moved down\n\nALPHA = 1 + 2"),
        ('{"x", "y"}', '{"y", "x"}'),
        ("return n == 0 or odd(n - 1)", "return (n == 0\n            or odd(n-1))"),
        ("def unrelated(x):\n    return x", "def unrelated(x):\n    return -x"),
    ],
)
def test_what_does_not_change_the_code(load: Load, old: str, new: str) -> None:
    before, after = fingerprint(load(FULL).fn), fingerprint(load(edited(old, new)).fn)
    assert before.digest == after.digest
    assert before.parts == after.parts
    assert changed(before, after) == []


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("x * ALPHA", "x + ALPHA", ["proj.fn"]),
        ("ALPHA = 3", "ALPHA = 3.0", ["proj.ALPHA"]),
        ("2.5]", "2.6]", ["proj.TABLE"]),
        ('{"x", "y"}', '{"x", "z"}', ["proj.TABLE"]),
        ("return n != 0", "return n > 0", ["proj.odd"]),
        ("return x * 2", "return x * 3", ["proj.doubled"]),
        ("return doubled(1)", "return doubled(2)", ["proj.Base.run"]),
        ("size = 5", "size = 6", ["proj.Model.size"]),
        ("self.size ** 2", "self.size ** 3", ["proj.Model.area"]),
        ("RED = 1", "RED = 2", ["proj.Color.RED"]),
        ("x ** power", "x * power", ["proj.curve"]),
        ("curve, power=2", "curve, power=4", ["proj.square"]),
        ("x, power=2", "x, power=5", ["proj.curve", "proj.curve(default 0)"]),
        ("lambda x: x + 1", "lambda x: x + 2", ["proj.<lambda>"]),
        ("def slow(x):\n    return x", "def slow(x):\n    return -x", ["proj.slow"]),
        ("+ n\n", "- n\n", ["proj.plus.<locals>.wrap.<locals>.inner"]),
        ("def decorated(x):\n    return x", "def decorated(x):\n    return -x", ["proj.decorated"]),
    ],
)
def test_what_changes_the_code_is_named(load: Load, old: str, new: str, names: list[str]) -> None:
    before, after = fingerprint(load(FULL).fn), fingerprint(load(edited(old, new)).fn)
    assert before.digest != after.digest
    assert changed(before, after) == names
    assert changed(after, before) == names


def test_a_changed_decorator_argument_changes_the_decorator_and_the_decorated(load: Load) -> None:
    before, after = fingerprint(load(FULL).fn), fingerprint(load(edited("@plus(1)", "@plus(2)")).fn)
    assert changed(before, after) == ["proj.decorated", "proj.plus.<locals>.wrap.<locals>.inner[n]"]


def test_the_fingerprint_says_what_it_is_of(load: Load) -> None:
    found = fingerprint(load(FULL).fn)
    assert found.name == "proj.fn"
    assert len(found.digest) == 64
    assert set(found.digest) <= set("0123456789abcdef")
    assert {"proj.fn", "proj.Model.make", "proj.even", "proj.odd", "proj.ALPHA"} <= set(found.parts)
    assert "proj.unrelated" not in found.parts
    assert [file.name for file in found.files] == ["proj.py"]
    assert found.warnings == ()
    assert fingerprint(load(FULL).decorated).name == "proj.decorated"


def test_other_modules_are_followed_by_attribute_by_name_and_inside_functions(load: Load) -> None:
    proj = "import conf\nimport tools as t\ndef fn(c):\n    from late import third\n    import late as l\n"
    proj += "    return conf.ALPHA + t.first() + third() + l.fourth()\n"
    others = {
        "conf": "ALPHA = 1\nOTHER = 1\n",
        "tools": "import conf\ndef first():\n    return conf.OTHER\ndef unused():\n    return 1\n",
        "late": "def third():\n    return 3\ndef fourth():\n    return 4\ndef unused():\n    return 5\n",
    }
    before = fingerprint(load(proj, **others).fn)
    assert sorted(file.name for file in before.files) == ["conf.py", "late.py", "proj.py", "tools.py"]

    def after(module: str, old: str, new: str) -> list[str]:
        text = {**others, module: others[module].replace(old, new)}
        assert text != others
        return changed(before, fingerprint(load(proj, **text).fn))

    assert after("conf", "ALPHA = 1", "ALPHA = 2") == ["conf.ALPHA"]
    assert after("conf", "OTHER = 1", "OTHER = 2") == ["conf.OTHER"]
    assert after("late", "return 3", "return 33") == ["late.third"]
    assert after("late", "return 4", "return 44") == ["late.fourth"]
    assert after("late", "return 5", "return 55") == []
    assert after("tools", "return 1", "return 11") == []


def test_files_include_modules_whose_constants_alone_are_used(load: Load) -> None:
    found = fingerprint(load("from conf import A\ndef fn(c):\n    return A\n", conf="A = 1\n").fn)
    assert sorted(file.name for file in found.files) == ["conf.py", "proj.py"]


def test_files_do_not_depend_on_what_else_was_imported(load: Load) -> None:
    proj = "from conf import A\ndef fn(c):\n    return A\ndef other(c):\n    import late\n    return late.B\n"
    module = load(proj, conf="A = 1\n", late="B = 1\n")
    before = fingerprint(module.fn)
    assert [file.name for file in fingerprint(module.other).files] == ["conf.py", "late.py", "proj.py"]
    assert fingerprint(module.fn) == before


def test_exchanged_functions_of_one_name_are_noticed(load: Load) -> None:
    one, two = "def step(x):\n    return x + 1\n", "def step(x):\n    return x * 2\n"
    proj = "import a, b\ndef fn(x):\n    return a.step(b.step(x))\n"
    before, after = fingerprint(load(proj, a=one, b=two).fn), fingerprint(load(proj, a=two, b=one).fn)
    assert before.digest != after.digest
    assert changed(before, after) == ["a.step", "b.step"]


def test_exchanged_imports_are_noticed_though_every_part_is_the_same(load: Load) -> None:
    parts = "def one(x):\n    return x + 1\ndef two(x):\n    return x * 2\n"
    proj = "from parts import one as f, two as g\ndef fn(x):\n    return f(g(x))\n"
    before = fingerprint(load(proj, parts=parts).fn)
    after = fingerprint(load(proj.replace("one as f, two as g", "two as f, one as g"), parts=parts).fn)
    assert before.digest != after.digest
    assert changed(before, after) == ["proj.fn"]


def test_a_chain_of_thousands_of_functions_is_walked(load: Load) -> None:
    text = "".join(f"def f{i}(x):\n    return f{i + 1}(x)\n" for i in range(3000)) + "def f3000(x):\n    return x\n"
    found = fingerprint(load(text).f0)
    assert len(found.parts) == 3001
    assert changed(found, fingerprint(load(text.replace("return x\n", "return -x\n")).f0)) == ["proj.f3000"]


def test_rebinding_a_global_is_noticed_at_once(load: Load) -> None:
    module = load(FULL)
    before = fingerprint(module.fn)
    module.ALPHA = 4
    assert changed(before, fingerprint(module.fn)) == ["proj.ALPHA"]
    module.ALPHA = 3
    module.TABLE["a"].append(1)
    assert changed(before, fingerprint(module.fn)) == ["proj.TABLE"]


def test_a_file_edited_after_its_import_is_not_taken_for_the_code_that_runs(load: Load) -> None:
    module = load("A = 1\ndef fn(x):\n    return x + A\n")
    file = Path(module.__file__ or "")
    file.write_text("# longer now\nA = 1\ndef fn(x):\n    return x + A + 1\n")
    old = fingerprint(module.fn)
    spec = importlib.util.spec_from_file_location("proj", file)
    assert spec is not None
    assert spec.loader is not None
    new = importlib.util.module_from_spec(spec)
    exec(file.read_text(), vars(new))
    assert changed(old, fingerprint(new.fn)) == ["proj.fn"]


def test_code_without_source_has_a_fingerprint_by_its_instructions() -> None:
    def made(body: str) -> CodeFingerprint:
        namespace: dict[str, Any] = {"__name__": "__main__", "A": 1}
        exec(body, namespace)
        return fingerprint(namespace["fn"])

    plain = made("def fn(x):\n    return x + A if x in {1, 2, 3} else (lambda: 'a')()")
    moved = made("\n\n# comment\ndef fn(x):\n    '''Doc.'''\n    return x + A if x in {3, 2, 1} else (lambda: 'a')()")
    other = made("def fn(x):\n    return x + A if x in {1, 2, 4} else (lambda: 'a')()")
    inner = made("def fn(x):\n    return x + A if x in {1, 2, 3} else (lambda: 'b')()")
    assert plain.digest == moved.digest
    assert len({plain.digest, other.digest, inner.digest}) == 3


def test_notebook_cells_are_read_from_where_the_notebook_keeps_them() -> None:
    def cell(number: int, text: str) -> CodeFingerprint:
        name = f"<ipython-input-{number}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        namespace: dict[str, Any] = {"__name__": "cells"}
        exec(compile(text, name, "exec"), namespace)
        return fingerprint(namespace["fn"])

    one = cell(1, "import asyncio\ndef fn(x: int) -> int:\n    return x\n")
    two = cell(2, "# again\ndef fn(x: int) -> int:\n    'doc'\n    return  x\n")
    three = cell(3, "def fn(x: float) -> int:\n    return x\n")
    assert one.digest == two.digest
    assert three.digest != one.digest  # annotations are only in the source: so it was read


def test_lambdas_on_one_line_are_told_apart(load: Load) -> None:
    text = "fns = [lambda x: x + 1, lambda x: x + 2, lambda x: lambda y: x + y]\n"
    module = load(text)
    digests = [fingerprint(fn).digest for fn in (*module.fns, module.fns[2](1))]
    assert len(set(digests)) == 4
    again = load("# moved\nfns = [\n  lambda x: x + 1, lambda x: x+2,\n  lambda x:\n    lambda y: x + y]\n")
    assert [fingerprint(fn).digest for fn in (*again.fns, again.fns[2](1))] == digests


def test_closures_count_by_value() -> None:
    def make(alpha: float, step: Callable[[float], float]) -> Callable[[float], float]:
        return lambda x: step(x) * alpha

    def up(x: float) -> float:
        return x + 1

    def down(x: float) -> float:
        return x - 1

    found = [fingerprint(make(alpha, step)) for alpha in (1.0, 2.0) for step in (up, down)]
    assert len({each.digest for each in found}) == 4
    assert fingerprint(make(1.0, up)).digest == found[0].digest


class Scorer:
    def __init__(self, weights: list[float]) -> None:
        self.weights = weights

    def __call__(self, config: dict[str, float]) -> float:
        return self.weights[0] * config["x"]

    def score(self, config: dict[str, float]) -> float:
        return self(config) + 1


def test_callable_instances_and_bound_methods_count_with_their_state() -> None:
    one, same, two = Scorer([1.0]), Scorer([1.0]), Scorer([2.0])
    assert fingerprint(one).digest == fingerprint(same).digest != fingerprint(two).digest
    assert fingerprint(one.score).digest == fingerprint(same.score).digest != fingerprint(two.score).digest
    assert fingerprint(one.score).digest != fingerprint(one).digest
    assert fingerprint(one).name.endswith("test_fingerprint.Scorer")
    assert fingerprint(one.score).name.endswith("test_fingerprint.Scorer.score")


def test_code_of_packages_counts_by_name(load: Load) -> None:
    first = load("import numpy as np\nfrom json import dumps\ndef fn(x):\n    return dumps(np.mean(x))\n").fn
    found = fingerprint(first)
    assert {"numpy", "json.dumps"} <= set(found.parts)
    assert [file.name for file in found.files] == ["proj.py"]
    other = load("import numpy as np\nfrom json import loads as dumps\ndef fn(x):\n    return dumps(np.mean(x))\n").fn
    assert changed(found, fingerprint(other)) == ["json.dumps", "json.loads"]


def test_a_package_decorator_does_not_hide_the_project_function(load: Load) -> None:
    text = "import contextlib\n@contextlib.contextmanager\ndef fn(x):\n    yield x\n"
    before, after = fingerprint(load(text).fn), fingerprint(load(text.replace("yield x", "yield -x")).fn)
    assert changed(before, after) == ["proj.fn"]


def test_a_task_is_seen_through_and_its_resources_are_not_code(load: Load) -> None:
    text = "import umbel.runtime.graph.task as tasks\n@tasks.task(cpus=1)\ndef fn(x):\n    return helper(x)\n"
    text += "@tasks.task\ndef helper(x):\n    return x\n"
    one = fingerprint(load(text).fn)
    two = fingerprint(load(text.replace("cpus=1", "cpus=2, retries=3")).fn)
    bare = fingerprint(load(text.replace("@tasks.task(cpus=1)\n", "").replace("@tasks.task\n", "")).fn)
    assert one.digest == two.digest == bare.digest
    assert one.name == "proj.fn"
    assert changed(one, fingerprint(load(text.replace("return x", "return -x")).fn)) == ["proj.helper"]


def test_what_can_not_be_read_counts_by_type_with_a_warning(load: Load) -> None:
    text = "import threading, logging, random\nLOCK = threading.Lock()\nlog = logging.getLogger(__name__)\n"
    text += "MIXED = {'lock': threading.Lock(), 'n': 1}\nRNG = random.Random()\n"
    text += "def fn(x):\n    with LOCK:\n        log.info('x')\n        return x, MIXED, RNG\n"
    found = fingerprint(load(text).fn)
    assert found.digest == fingerprint(load(text).fn).digest
    assert sorted(warning.partition(":")[0] for warning in found.warnings) == ["proj.LOCK", "proj.MIXED", "proj.RNG"]
    assert "_thread:lock" in found.warnings[0]
    assert changed(found, fingerprint(load(text.replace("'n': 1", "'n': 2")).fn)) == ["proj.MIXED"]


def test_captured_arrays_count_by_content_up_to_a_limit() -> None:
    def fn(config: object, data: object) -> None: ...

    small = [fingerprint(functools.partial(fn, data=np.full(10, value))) for value in (1.0, 1.0, 2.0)]
    assert small[0].digest == small[1].digest != small[2].digest
    assert small[0].warnings == ()
    large = [fingerprint(functools.partial(fn, data=np.full(3 * 2**20, value))) for value in (1.0, 2.0)]
    assert large[0].digest == large[1].digest
    assert "16 MiB" in large[0].warnings[0]


def test_values_that_contain_themselves_are_read() -> None:
    def fn(config: object, data: object) -> None: ...

    def cyclic(last: int) -> list[Any]:
        values: list[Any] = [1, last]
        values.append(values)
        return values

    found = [fingerprint(functools.partial(fn, data=cyclic(last))).digest for last in (2, 2, 3)]
    assert found[0] == found[1] != found[2]


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=8,
)


@given(_values, _values)
def test_values_count_by_content_and_type(a: object, b: object) -> None:
    def fn(config: object, data: object) -> None: ...

    one, two = (fingerprint(functools.partial(fn, data=value)).digest for value in (a, b))
    again = fingerprint(functools.partial(fn, data=cloudpickle.loads(cloudpickle.dumps(a)))).digest
    assert one == again
    assert (one == two) == (repr(a) == repr(b))


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1] if len(sys.argv) > 1 else ".")
if __name__ == "__main__":
    from umbel.runtime.provenance.fingerprint import fingerprint
    print(fingerprint(fn).digest)
"""


def test_one_digest_as_script_as_module_as_import_and_in_any_process(tmp_path: Path) -> None:
    body, end = (
        FULL + "import pkg.conf\ndef more(c):\n    return fn(c), pkg.conf.WORDS\n",
        SCRIPT.replace("(fn)", "(more)"),
    )
    (tmp_path / "proj.py").write_text(body + end)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "conf.py").write_text("WORDS = {w: {w, w * 2, w * 3} for w in ('ab', 'cd', 'ef')}\n")
    importing = (
        "import proj; from umbel.runtime.provenance.fingerprint import fingerprint; "
        "print(fingerprint(proj.more).digest)"
    )
    runs = [
        (["proj.py"], "0"),
        (["proj.py"], "1"),
        (["-m", "proj"], "2"),
        (["-c", importing], "3"),
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments], cwd=tmp_path, env={"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for arguments, seed in runs
    ]
    digests = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert len(digests[0]) == 64
    assert len(set(digests)) == 1


# ---- the archive of the source -----------------------------------------------------------------------------


def test_source_zip_is_the_same_bytes_whenever_it_is_made(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    files = [root / "main.py", root / "pkg" / "a.py", tmp_path / "elsewhere" / "b.py"]
    for file in files:
        file.write_text(f"# {file.name}\n")
    first = source_zip(files, root)
    for file in files:
        file.touch()
    assert source_zip([*reversed(files), files[0]], root) == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["main.py", "outside/elsewhere/b.py", "pkg/a.py"]
        assert archive.read("pkg/a.py") == b"# a.py\n"


def test_source_zip_names_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CodeError, match=r"gone\.py"):
        source_zip([tmp_path / "gone.py"], tmp_path)
