"""How far did an earlier attempt at this trial come? What `umbel.report(…, checkpoint=…)` saved, for the next attempt.

A trial that neither saves nor asks costs nothing: the store is looked at when the function first does either. So
nothing has to survive the worker: the next attempt, after a failure, a lost worker, a preemption or a killed driver,
finds the last checkpoint by listing the trial's folder. It must not know leases or the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel.scheduler.errors import StoreError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.checkpoints import Saved, delete_older, list_checkpoints, load_checkpoint, pack, save_checkpoint

if TYPE_CHECKING:
    import tempfile

__all__ = ["TrialCheckpoints"]


class TrialCheckpoints:
    """The checkpoints of one attempt at a trial, and of those before.

    Args:
        objects: the store.
        run_id: the run.
        sweep: the sweep's name in it.
        trial: index of the trial in its sweep.
        attempt: which attempt this is.
    """

    def __init__(self, objects: ObjectStore, run_id: str, sweep: str, trial: int, attempt: int) -> None:
        self._objects = objects
        self._place = run_id, sweep, trial
        self._attempt = attempt
        self._known: list[Saved] | None = None
        self._loaded = False
        self._last: object = None
        #: Where files of a checkpoint were unpacked to; it goes when this object does.
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        #: What kept a checkpoint from being saved: then the trial is not to blame for failing.
        self.error: StoreError | None = None

    @property
    def last(self) -> object:
        """The last checkpoint of the attempts before this one; None: there is none.

        Cost: one listing, and one read if there is one; once.

        Raises:
            StoreError: the store can't be read, or the value needs code that is missing here.
        """
        if not self._loaded:
            known = self._look()
            if known:
                self._last = load_checkpoint(self._objects, known, self._make_folder)
            self._loaded = True
        return self._last

    def save(self, value: object) -> None:
        """Make a checkpoint durable; those before it are deleted.

        Raises:
            CodeError: the value can't be pickled.
            StoreError: the store can't be written.
        """
        data = pack(value)
        try:
            known = self._look()
            number = known[-1].number + 1 if known else 1
            saved = save_checkpoint(self._objects, *self._place, self._attempt, number, data)
            delete_older(self._objects, known, saved)
        except StoreError as error:
            self.error = error
            raise
        self._known = [saved]

    def _make_folder(self) -> str:
        import tempfile

        self._folder = tempfile.TemporaryDirectory(prefix="umbel-checkpoint-", ignore_cleanup_errors=True)
        return self._folder.name

    def _look(self) -> list[Saved]:
        if self._known is None:
            self._known = list_checkpoints(self._objects, *self._place)
        return self._known
