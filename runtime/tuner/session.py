"""How does `ray.tune.report`, called by a function that was written for Ray Tune, reach Umbel?

Tune's functions look for the session of their process, a module's global variable. While a trial runs, a `TuneSession`
stands there: it takes reports and checkpoints and answers Tune's questions about the trial. Ray's module is not
imported for that, because it costs a second and many functions never ask: if the function imports it itself, the
session is put there then. It must not know what ends a trial.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from umbel.runtime.leases import context as trial_context
from umbel.runtime.leases.context import TrialContext
from umbel.runtime.tuner.history import History

__all__ = ["TrialEnded", "TuneSession", "Workplace", "installed"]

#: Where Ray keeps the session of a process.
_MODULE = "ray.train._internal.session"
#: In a saved checkpoint: the user's files, and how far the trial was.
_FILES, _STATE = "files", "history.pickle"


class TrialEnded(BaseException):
    """Ends a trial that has met a stop condition; no `Exception`, so that code which catches those lets it by."""


class Workplace:
    """The temporary folders of one attempt at a trial, which go with it, and its checkpoints.

    Args:
        context: the trial.
    """

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._saved = 0

    def folder(self, name: str) -> Path:
        """A folder of this name; it is made if it is not there."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="umbel-trial-", ignore_cleanup_errors=True)
        found = Path(self._folder.name, name)
        found.mkdir(exist_ok=True)
        return found

    def empty_folder(self, name: str) -> Path:
        """A folder of this name, without what was in it."""
        shutil.rmtree(self.folder(name), ignore_errors=True)
        return self.folder(name)

    def save(self, files: Path, history: History) -> Path:
        """Make a checkpoint durable; returns a copy of the files that stays until the next one is saved."""
        self._saved += 1
        place = self.folder(f"checkpoint-{self._saved}")
        try:
            # Hard links: nothing is copied where both are on one disk.
            shutil.copytree(files, place / _FILES, copy_function=os.link)
        except (OSError, shutil.Error):
            shutil.rmtree(place / _FILES, ignore_errors=True)
            shutil.copytree(files, place / _FILES)
        (place / _STATE).write_bytes(cloudpickle.dumps(history))
        self._context.save(place)
        shutil.rmtree(self.folder(f"checkpoint-{self._saved - 1}"), ignore_errors=True)
        return place / _FILES

    def saved(self) -> tuple[Path, History] | None:
        """What an earlier attempt saved last."""
        place = self._context.checkpoint
        return None if place is None else read_saved(place)

    def close(self) -> None:
        """Remove the folders."""
        if self._folder is not None:
            self._folder.cleanup()


def read_saved(place: Path) -> tuple[Path, History]:
    """The files of a checkpoint, and the history of the trial until then."""
    history = cloudpickle.loads((place / _STATE).read_bytes())
    assert isinstance(history, History)
    return place / _FILES, history


class TuneSession:
    """What Tune's functions find while a trial runs.

    Args:
        context: the trial.
        workplace: its folders and checkpoints.
        history: takes the reports.
        on_report: is given each report, complete; may raise to end the trial.
    """

    #: No worker of Ray Train: by this Tune knows its own sessions.
    world_rank = None
    local_rank = node_rank = local_world_size = world_size = None
    metadata: Mapping[str, object] | None = None
    storage = None

    def __init__(
        self,
        context: TrialContext,
        workplace: Workplace,
        history: History,
        on_report: Callable[[dict[str, Any]], None],
    ) -> None:
        self._context = context
        self._workplace = workplace
        self._history = history
        self._on_report = on_report
        self._loaded: Any = None
        self._looked = False

    def report(self, metrics: Mapping[str, Any], checkpoint: Any = None, **_: object) -> None:
        """`ray.tune.report`."""
        if trial_context.current.context is None:
            trial_context.current.context = self._context  # a thread of the function's own
        result = self._history.add(metrics)
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                files = self._workplace.save(Path(folder), self._history)
            self._looked, self._loaded = True, type(checkpoint).from_directory(files)
        self._on_report(result)

    @property
    def loaded_checkpoint(self) -> Any:
        """`ray.tune.get_checkpoint`: what was saved last, by this attempt or those before."""
        if not self._looked:
            self._looked = True
            found = self._workplace.saved()
            if found is not None:
                from ray.tune import Checkpoint

                files, history = found
                if not self._history.count:
                    self._history.go_on_from(history)
                self._loaded = Checkpoint.from_directory(files)
        return self._loaded

    @property
    def experiment_name(self) -> str:
        """The sweep's name."""
        return self._context.sweep

    run_id = experiment_name

    @property
    def trial_name(self) -> str:
        """The sweep's name with the trial's index."""
        return f"{self._context.sweep}_{self.trial_id}"

    @property
    def trial_id(self) -> str:
        """The trial's index in its sweep, with zeros before it."""
        return self._history.trial_id

    @property
    def trial_dir(self) -> str:
        """A temporary folder, which goes when the attempt ends."""
        return str(self._workplace.folder("trial"))

    @property
    def trial_resources(self) -> Any:
        """What the trial's worker holds."""
        import ray
        from ray.tune import PlacementGroupFactory

        held = ray.get_runtime_context().get_assigned_resources() if ray.is_initialized() else {}
        return PlacementGroupFactory([held or {"CPU": 1.0}])


@contextmanager
def installed(session: TuneSession) -> Iterator[None]:
    """While inside, Tune's functions find this session."""
    module = sys.modules.get(_MODULE)
    hook = _OnImport(session)
    before = None
    if module is None:
        sys.meta_path.insert(0, hook)
    else:
        before, module._session = module._session, session  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if hook in sys.meta_path:
            sys.meta_path.remove(hook)
        module = sys.modules.get(_MODULE)
        if module is not None:
            module._session = before  # type: ignore[attr-defined]


class _OnImport(importlib.abc.MetaPathFinder):
    """Puts the session into Ray's module when that is imported."""

    def __init__(self, session: TuneSession) -> None:
        self._session = session

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._session)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: Any, session: TuneSession) -> None:
        self._inner = inner
        self._session = session

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._inner.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        module._session = self._session  # type: ignore[attr-defined]
