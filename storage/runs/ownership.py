"""Who may write a run? One process at a time, named by the newest record of a chain.

``runs/<id>/owner/<n>.json`` are create-only and numbered in order, so two processes can't both add record n: the one
that succeeds owns the run. The owner adds a record now and then to show that it lives, and a last one when it lets go.
A holder that died, or whose lease passed, is taken over by whoever adds the next record. It must not know what the
owner writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from umbel.scheduler.errors import NotFoundError, RunHeldError, StoreConflictError, StoreError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.redaction import redact_argv
from umbel.storage.runs.process import ProcessId, current_user, is_alive, this_process

__all__ = ["OwnerRecord", "OwnerView", "Ownership", "owner_status", "request_cancel"]

#: How often a lost race is tried again. Each one means that some other process won.
_MAX_ATTEMPTS = 50
#: What lies beyond is no lease, or no time: a damaged record.
_LONGEST_LEASE_S = 1e9
#: Characters.
_LONGEST_DETAIL = 2_000
_FIRST_YEAR, _LAST_YEAR = 1970, 9000


#: Tokens of claims that this process has let go of. The store may not know: it may not have answered.
_let_go: set[str] = set()


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """One record of the chain."""

    state: Literal["held", "released"]
    process: ProcessId
    user: str
    #: The command line, without credentials.
    command: list[str]
    #: When the owner took the run, and when it last said that it lives; UTC.
    acquired: datetime
    renewed: datetime
    lease_s: float
    #: Why it was released: "done", "interrupted", …; None while it is held.
    reason: str | None
    #: Random, the same in all records of one owner.
    token: str
    #: What more there is to say on the reason, for people: of a failed run its error.
    detail: str | None = None

    def to_json(self) -> bytes:
        """The record as it is stored."""
        fields = asdict(self)
        process = fields.pop("process")
        fields["acquired"] = self.acquired.isoformat()
        fields["renewed"] = self.renewed.isoformat()
        return json.dumps({"format": 1, **fields, **process}, indent=1).encode()

    @staticmethod
    def from_json(data: bytes) -> OwnerRecord:
        """Read a stored record.

        Raises:
            ValueError: it is damaged.
        """
        try:
            fields: dict[str, Any] = json.loads(data)
            process = ProcessId(
                *(fields[name] for name in ("host", "boot_id", "pid_namespace", "pid", "started_ticks"))
            )
            lease_s = float(fields["lease_s"])
            detail = fields.get("detail")
            if detail is not None and not isinstance(detail, str):
                raise ValueError("not an owner record: the detail is no text")
            texts = (process.host, fields["user"], fields["token"], *fields["command"])
            if fields["state"] not in ("held", "released") or not all(isinstance(text, str) for text in texts):
                raise ValueError("not an owner record: a field is of another type")
            if not 0 < lease_s < _LONGEST_LEASE_S or not isinstance(process.pid, int):
                raise ValueError("not an owner record: a number is out of range")
            return OwnerRecord(
                state=fields["state"],
                process=process,
                user=fields["user"],
                command=list(fields["command"]),
                acquired=_time(fields["acquired"]),
                renewed=_time(fields["renewed"]),
                lease_s=lease_s,
                reason=fields["reason"],
                token=fields["token"],
                detail=detail,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an owner record: {error!r}") from error

    def is_alive(self, now: datetime) -> bool:
        """Whether its owner lives: by its process where that can be seen from here, else by its lease."""
        seen = is_alive(self.process)
        return now <= self.renewed + timedelta(seconds=self.lease_s) if seen is None else seen


@dataclass(frozen=True, slots=True)
class OwnerView:
    """Who owns a run, seen from outside."""

    #: "none": nobody ever wrote it. "dead": its owner ended without letting go.
    state: Literal["none", "held", "dead", "released"]
    #: The newest record; None if there is none, or it is damaged.
    record: OwnerRecord | None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or not _FIRST_YEAR < time.year < _LAST_YEAR:
        raise ValueError("not an owner record: no time with a zone")
    return time


def _utc_now() -> datetime:
    return datetime.now(UTC)


def owner_status(objects: ObjectStore, run_id: str, now: datetime | None = None) -> OwnerView:
    """Who owns a run. Cost: one listing and one read."""
    _, view = _newest(objects, run_id, now or _utc_now())
    return view


def request_cancel(objects: ObjectStore, run_id: str) -> None:
    """Ask whoever writes a run now to stop in good order; it looks every ten seconds or so.

    Raises:
        NotFoundError: nobody writes it.
    """
    view = owner_status(objects, run_id)
    if view.state != "held" or view.record is None:
        raise NotFoundError(f"no process is writing the run {run_id!r}", got=view.state, expected="a run that goes on")
    try:
        objects.create(layout.cancellation(run_id, view.record.token), b"{}")
    except StoreConflictError:
        return  # asked already


class Ownership:
    """This process's right to write a run, from `acquire` to `release`."""

    def __init__(
        self,
        objects: ObjectStore,
        run_id: str,
        number: int,
        record: OwnerRecord,
        *,
        now: Callable[[], datetime] = _utc_now,
        older: list[int] | None = None,
    ) -> None:
        self._objects = objects
        self._now = now
        self._number = number
        self._older = older or []
        self._released = False
        self.run_id = run_id
        self.record = record

    @classmethod
    def acquire(
        cls, objects: ObjectStore, run_id: str, *, now: Callable[[], datetime] = _utc_now, lease_s: float = 30.0
    ) -> Ownership:
        """Become the one writer of a run.

        Args:
            objects: the store.
            run_id: the run; it need not exist yet.
            now: the time, UTC.
            lease_s: how long others on other machines believe in this owner after a renewal; renew every third of it.

        Raises:
            RunHeldError: a live process holds it; it is named.
            StoreError: the store can't be written.
        """
        token = uuid4().hex
        for _ in range(_MAX_ATTEMPTS):
            moment = now()
            newest, view = _newest(objects, run_id, moment)
            if view.state == "held" and view.record is not None and view.record.token not in _let_go:
                raise _held(run_id, view.record)
            record = OwnerRecord(
                state="held",
                process=this_process(),
                user=current_user(),
                command=redact_argv(sys.argv),
                acquired=moment,
                renewed=moment,
                lease_s=lease_s,
                reason=None,
                token=token,
            )
            number = newest + 1
            older = _claim(objects, run_id, number, record)
            if older is not None:
                return cls(objects, run_id, number, record, now=now, older=older)
        raise StoreError(
            f"too many processes are taking over the run {run_id!r} at once", hint="run the same command again"
        )

    def renew(self) -> None:
        """Show that this owner lives. Call it every third of the lease. Cost: one write, one listing, one delete.

        Raises:
            RunHeldError: another process has taken the run over; nothing more may be written.
            StoreError: the store can't be written.
        """
        self._add(replace(self.record, renewed=self._now()))

    def cancel_requested(self) -> bool:
        """Whether another process has asked this owner to stop (see `request_cancel`). Cost: one look at the store."""
        return self._objects.exists(layout.cancellation(self.run_id, self.record.token))

    def release(self, reason: str, detail: str | None = None) -> None:
        """Let go of the run, once; after a takeover there is nothing to let go of, and nothing happens.

        Args:
            reason: why, in a word: "done", "interrupted", "failed".
            detail: more on it, for people, without credentials; the first 2,000 characters are kept.
        """
        if self._released:
            return
        self._released = True
        _let_go.add(self.record.token)
        try:
            said = None if detail is None else detail[:_LONGEST_DETAIL]
            self._add(replace(self.record, renewed=self._now(), state="released", reason=reason, detail=said))
        except RunHeldError:
            return

    def _add(self, record: OwnerRecord) -> None:
        older = _claim(self._objects, self.run_id, self._number + 1, record)
        if older is None:
            _, view = _newest(self._objects, self.run_id, self._now())
            raise _taken_over(self.run_id, view.record)
        # The previous record stays: a reader may just have listed it.
        for number in older[:-1]:
            self._objects.delete(layout.owner(self.run_id, number))
        self._number += 1
        self.record = record


def _claim(objects: ObjectStore, run_id: str, number: int, record: OwnerRecord) -> list[int] | None:
    """Add a record; returns the older ones' numbers, or None if another process was first.

    Old records are deleted, so a process that slept for long may find its next number free again although others went
    past it: only a record that is the newest after it was written counts.
    """
    path = layout.owner(run_id, number)
    try:
        objects.create(path, record.to_json(), unique=True)
    except StoreConflictError:
        return None
    numbers = _numbers(objects, run_id)
    if numbers[-1:] == [number]:
        return numbers[:-1]
    objects.delete(path)
    return None


def _numbers(objects: ObjectStore, run_id: str) -> list[int]:
    names = (path.rpartition("/")[2] for path in objects.list(layout.owner_folder(run_id)))
    return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal())


def _newest(objects: ObjectStore, run_id: str, now: datetime) -> tuple[int, OwnerView]:
    """The newest record's number (-1: none) and what it says."""
    for _ in range(_MAX_ATTEMPTS):
        numbers = _numbers(objects, run_id)
        if not numbers:
            return -1, OwnerView("none", None)
        try:
            record = OwnerRecord.from_json(objects.read(layout.owner(run_id, numbers[-1])))
        except NotFoundError:
            # Renewed twice since we listed: look again.
            continue
        except ValueError:
            # A record cut short by a crash: whoever wrote it did not get to write the run.
            return numbers[-1], OwnerView("dead", None)
        if record.state == "released":
            return numbers[-1], OwnerView("released", record)
        return numbers[-1], OwnerView("held" if record.is_alive(now) else "dead", record)
    raise StoreError(f"the owner records of the run {run_id!r} change faster than they can be read")


def _who(record: OwnerRecord) -> str:
    since = record.acquired.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{record.user} on {record.process.host}, process {record.process.pid}, since {since}"


def _held(run_id: str, record: OwnerRecord) -> RunHeldError:
    if record.process == this_process():
        hint = "it is held by this very process: wait for the run that is going on, or give this one another name"
    else:
        hint = f"wait for it, end it (kill {record.process.pid} on {record.process.host}), or choose another name"
    return RunHeldError(
        f"another process is writing the run {run_id!r}",
        got=f"{_who(record)}: {' '.join(record.command)}",
        expected="one writer a run",
        hint=hint,
    )


def _taken_over(run_id: str, record: OwnerRecord | None) -> RunHeldError:
    return RunHeldError(
        f"another process has taken over the run {run_id!r}",
        got=None if record is None else _who(record),
        hint="this happens if this process was stopped for longer than its lease; let the other one finish",
    )
