"""Which versions has a registered model, and which of them is in use?

A version is a record that names a table with a model a group; an alias (``champion``) is a chain of records of which
the highest number is the truth. All are created once and never changed, so two processes can't both make one: of two
that move an alias at once one wins, and the other is told who did. It must not know how versions are made or judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from umbel.scheduler.errors import NotFoundError, StoreConflictError, UsageError
from umbel.storage import layout
from umbel.storage.documents import create_document
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.records import AliasRecord, check_alias, read_alias, read_version
from umbel.storage.runs.graph_record import near_names

if TYPE_CHECKING:
    import pyarrow as pa

    from umbel.storage.registry.gate_results import Gate

__all__ = ["CHAMPION", "RegisteredModel"]

#: The alias that is meant if none is named.
CHAMPION = "champion"


class RegisteredModel:
    """One registered model: its versions, and the aliases that point to them. Pickles.

    Args:
        objects: the store.
        name: of the model.
    """

    def __init__(self, objects: ObjectStore, name: str) -> None:
        self._objects = objects
        self.name = name
        #: Records never change, so one that was read is read no more: the newest of each alias.
        self._newest: dict[str, AliasRecord] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._objects, self.name))

    def __repr__(self) -> str:
        return f"<registered model {self.name!r} in {self._objects.url}>"

    @property
    def objects(self) -> ObjectStore:
        """The store."""
        return self._objects

    # ---- versions ------------------------------------------------------------------------------------------

    def versions(self) -> list[int]:
        """The numbers of its versions, in order. Cost: one listing."""
        from umbel.storage.registry.registration import version_numbers

        return version_numbers(self._objects, self.name)

    def version(self, version: int | str = "latest") -> ModelVersion:
        """A version.

        Args:
            version: its number; an alias; or "latest", the newest that was registered, which is none of those that a
                promotion puts together. Cost of an alias or "latest": one listing and one or two reads.

        Raises:
            NotFoundError: there is no such version or alias.
            StoreCorruptError: its record is damaged.
        """
        number = self._number_of(version)
        record = read_version(self._objects, self.name, number)
        if record is None:
            numbers = self.versions()
            raise NotFoundError(
                f"{self.name!r} has no such version",
                got=str(version),
                expected=f"1 to {numbers[-1]}" if numbers else None,
                hint=f"umbel models {self.name} lists them",
            )
        return ModelVersion(self._objects, record)

    def _number_of(self, version: int | str) -> int:
        if isinstance(version, int) and not isinstance(version, bool):
            return version
        if not isinstance(version, str):
            raise UsageError(
                'a version is named by its number, an alias or "latest"', got=repr(version), expected="3, say"
            )
        if version.isdecimal():
            return int(version)
        if version != "latest":
            return self.resolve(version).version
        numbers = self.versions()
        if not numbers:
            raise NotFoundError(f"{self.name!r} has no versions", hint=f"umbel register RUN --model {self.name}")
        for number in reversed(numbers):
            record = read_version(self._objects, self.name, number)
            if record is not None and not record.composed_of:
                return number
        return numbers[-1]

    # ---- aliases -------------------------------------------------------------------------------------------

    def aliases(self) -> dict[str, int]:
        """The version that each alias points to. Cost: a listing, and one and a read an alias."""
        found = {name: self.newest(name) for name in self.alias_names()}
        return {name: record.version for name, record in found.items() if record is not None}

    def alias_names(self) -> list[str]:
        """The aliases that there are. Cost: one listing."""
        return [name for name in self._objects.list_folders(layout.aliases_folder(self.name)) if layout.is_name(name)]

    def resolve(self, alias: str = CHAMPION) -> AliasRecord:
        """Where an alias points now, since when, by whom and why.

        Cost: one listing; and a read, if this object has not read the newest record before. So it may be polled.

        Raises:
            NotFoundError: there is no such alias.
            StoreCorruptError: its newest record is damaged.
        """
        check_alias(alias)
        found = self.newest(alias)
        if found is None:
            known = self.aliases()
            raise NotFoundError(
                f"{self.name!r} has no such alias",
                got=alias,
                expected="one of " + ", ".join(known) if known else None,
                hint=near_names(alias, known) or f"umbel promote {self.name} VERSION --alias {alias} makes it",
            )
        return found

    def history(self, alias: str | None = None) -> list[AliasRecord]:
        """Where aliases have pointed, oldest first.

        Args:
            alias: only this one; None: all, in order of time.

        Raises:
            NotFoundError: there is no such alias.

        Cost: a read a record.
        """
        if alias is not None:
            self.resolve(alias)
            return self._records(alias)
        found = [record for name in self.alias_names() for record in self._records(name)]
        return sorted(found, key=lambda record: (record.created, record.alias, record.number))

    def set_alias(self, alias: str, version: int | str, *, why: str = "") -> AliasRecord:
        """Point an alias to a version, without gates.

        Returns:
            The new record; the present one, if it points there already.

        Raises:
            NotFoundError: there is no such version.
            StoreConflictError: another process has moved the alias just now; says who.
        """
        check_alias(alias)
        before = self.newest(alias)
        return self.move_alias(alias, self.version(version).number, before, action="set", why=why)

    def promote(
        self,
        version: int | str,
        alias: str = CHAMPION,
        *,
        gate: Gate | Sequence[Gate] | None = None,
        groups: Sequence[object] | None = None,
        per_group: bool = False,
        why: str = "",
        trust: bool = False,
    ) -> AliasRecord:
        """Point an alias to a version that has passed its gates, and keep the evidence.

        All its models are read and compared with their digests first, and asked the example that was registered.

        Args:
            version: see `version`.
            alias: what to move; a new one is made.
            gate: functions of (candidate, current) that judge each group (`umbel.gates`); current is None for a new
                alias. All of them must pass.
            groups: only these groups move, and only these are judged; all others keep their models: a new version is
                put together of both. The alias must be there already.
            per_group: a group that does not pass a gate keeps its present model; all others move. As above.
            why: a note for people.
            trust: load models whatever they hold; see `ModelVersion.load`.

        Returns:
            The new record; the present one, if it points there already.

        Raises:
            NotFoundError: there is no such version or group.
            UsageError: an argument can't be used; groups of a new alias; a metric that the version does not have.
            PromotionRefusedError: a gate has not passed, or a model is damaged or does not answer: a table says which.
            UntrustedError: models must be loaded and carry code, and the store is not trusted.
            StoreConflictError: another process has moved the alias meanwhile; says who.
        """
        from umbel.storage.registry.promotion import promote

        return promote(self, version, alias, gate=gate, groups=groups, per_group=per_group, why=why, trust=trust)

    def evidence(self, record: AliasRecord) -> pa.Table | None:
        """What a promotion rests on, a row a gate and group; None: nothing was kept.

        Returns:
            Columns: gate, group, passed (the gate), ok (the group), candidate, current (what was compared, or null),
            kept (the group kept the model it had), note.

        Raises:
            StoreCorruptError: it is damaged.
        """
        from umbel.storage.registry.model_rows import read_table

        return None if record.evidence is None else read_table(self._objects, record.evidence)

    def rollback(self, alias: str = CHAMPION, *, why: str = "") -> AliasRecord:
        """Point an alias to the version that it pointed to before; once more goes one further back.

        Raises:
            NotFoundError: there is no such alias.
            UsageError: it has never pointed to another version.
            StoreConflictError: another process has moved the alias just now; says who.
        """
        before = self.resolve(alias)
        went: list[int] = []
        for record in self._records(alias):
            if record.action == "rollback":
                went = went[:-1] or [record.version]
            else:
                went.append(record.version)
        if len(went) < 2:
            raise UsageError(
                f"there is nothing that {alias!r} of {self.name!r} could go back to",
                got=f"version {before.version}, the first that it points to",
                hint=f"umbel promote {self.name} VERSION --alias {alias} points it to another",
            )
        target = self.version(went[-2]).number
        return self.move_alias(alias, target, before, action="rollback", why=why)

    def move_alias(
        self,
        alias: str,
        version: int,
        before: AliasRecord | None,
        *,
        action: str,
        why: str = "",
        gates: Sequence[str] = (),
        evidence: str | None = None,
    ) -> AliasRecord:
        """Add the record that points an alias to a version, if none was added since ``before`` was read.

        Args:
            alias: the alias.
            version: a version that is there.
            before: the newest record; None: there was none.
            action: "promote", "rollback" or "set".
            why: a note for people.
            gates: what was passed.
            evidence: digest of the artifact that shows it.

        Raises:
            StoreConflictError: another process has moved the alias since; says who.
        """
        if before is not None and before.version == version:
            return before
        record = AliasRecord(
            model=self.name,
            alias=alias,
            number=1 if before is None else before.number + 1,
            version=version,
            previous=None if before is None else before.version,
            action=action,
            why=why,
            gates=tuple(gates),
            evidence=evidence,
        )
        path = layout.alias_record(self.name, alias, record.number)
        try:
            create_document(self._objects, path, record.as_dict(), unique=True)
        except StoreConflictError:
            winner = read_alias(self._objects, self.name, alias, record.number)
            raise StoreConflictError(
                f"{alias!r} of {self.name!r} was moved by another process just now",
                got=None
                if winner is None
                else f"to version {winner.version} by {winner.user} on {winner.host} at {winner.created}"
                + (f": {winner.why}" if winner.why else ""),
                expected=f"it still at {'no version' if before is None else f'version {before.version}'}",
                hint="look at what it points to now, and promote again if that is still right",
            ) from None
        self._newest[alias] = record
        return record

    def newest(self, alias: str) -> AliasRecord | None:
        """As `resolve`; None: there is no such alias."""
        numbers = self._numbers(alias)
        if not numbers:
            return None
        held = self._newest.get(alias)
        if held is None or held.number != numbers[-1]:
            held = read_alias(self._objects, self.name, alias, numbers[-1])
            if held is not None:
                self._newest[alias] = held
        return held

    def _records(self, alias: str) -> list[AliasRecord]:
        found = [read_alias(self._objects, self.name, alias, number) for number in self._numbers(alias)]
        return [record for record in found if record is not None]

    def _numbers(self, alias: str) -> list[int]:
        found = map(layout.record_number, self._objects.list(layout.alias_folder(self.name, alias)))
        return sorted(number for number in found if number is not None)
