"""Which models are registered, in which versions, and which of them is in use?

A version is a record that names a table with a model a group; an alias (``champion``) is a chain of records of which
the highest number is the truth. All are created once and never changed, so two processes can't both make one: of two
that move an alias at once one wins, and the other is told who did. It must not run anything but models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.scheduler.errors import NotFoundError, StoreConflictError, UsageError
from umbel.storage import layout
from umbel.storage.documents import create_document
from umbel.storage.graph_record import near_names
from umbel.storage.model_version import ModelVersion
from umbel.storage.objects import ObjectStore
from umbel.storage.registry_records import AliasRecord, check_alias, check_model, read_alias, read_version
from umbel.storage.run import Run

__all__ = ["RegisteredModel", "Registry"]

#: The alias that is meant if none is named.
CHAMPION = "champion"


class Registry:
    """The registered models of a store: `Store.registry`. Pickles.

    Args:
        objects: the store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def __repr__(self) -> str:
        return f"<registry of {self._objects.url}>"

    def register(
        self,
        run: Run | str,
        *,
        model: str,
        by: str | Sequence[str] | None = None,
        models: object = None,
        sweep: object = None,
        why: str = "",
        inputs: object = None,
        smoke: object = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> ModelVersion:
        """Make the next version of a registered model from the winners of a run: one model a group.

        Each model is loaded (which unpickles it, as `Run.load_model` does), and asked the example if there is one.

        Args:
            run: a run of this store that is done, or its name.
            model: the name of the registered model; a new one is made.
            by: the group keys. Fewer than the sweep has: the best of all groups that agree in these. None: all.
            models: the node, or its name, whose elements are the models, one a group in the order of the groups
                (``refit.map(sweep.best(), data)``). None: those that the best trials returned in `umbel.Result`.
            sweep: which sweep, if the run has several.
            why: a note for people.
            inputs: example inputs, from which the JSON schema of inputs is inferred, and with which every model is
                asked now and before the version is promoted; or a JSON schema (a dict with "type" or "$schema").
                Arrays and tables as an example mean that models are given such.
            smoke: example inputs, if ``inputs`` is a schema.
            outputs: the JSON schema of outputs; None: inferred from what the first model answers.

        Raises:
            NotFoundError: there is no such run, sweep or node.
            UsageError: a name can't be used; the run is not done; groups have no winner or no model, or their models
                can't be loaded or asked: named, with what to do.
            StoreError: the store can't be read or written.

        Cost: each model is read and decoded once; one object for all small models that need a new format, one for the
        table, one for the record.
        """
        from umbel.storage.registration import register
        from umbel.storage.store import Store

        check_model(model)
        store = Store(self._objects)
        found = store.run(run) if isinstance(run, str) else run
        if found.objects.url != self._objects.url:
            raise UsageError(
                "the run lies in another store",
                got=found.objects.url,
                expected=self._objects.url,
                hint="register it in its own: umbel.open_store(run.store_url).registry",
            )
        store.check_format()
        record = register(
            self._objects,
            found,
            model=model,
            by=by,
            models=models,
            sweep=sweep,
            why=why,
            smoke=smoke,
            inputs=inputs,
            outputs=outputs,
        )
        return ModelVersion(self._objects, record)

    def models(self) -> list[str]:
        """The names of all registered models. Cost: one listing."""
        return [name for name in self._objects.list_folders(layout.REGISTRY) if layout.is_name(name)]

    def model(self, name: str) -> RegisteredModel:
        """A registered model.

        Raises:
            NotFoundError: there is none of this name; near names are given.
            UsageError: this can't be the name of a model.
        """
        check_model(name)
        found = RegisteredModel(self._objects, name)
        if not found.versions():
            names = self.models()
            hint = near_names(name, names) or (
                "it has " + ", ".join(names[:10]) if names else f"umbel register RUN --model {name} makes one"
            )
            raise NotFoundError(
                f"the store {self._objects.url} has no registered model of this name", got=name, hint=hint
            )
        return found


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
        from umbel.storage.registration import version_numbers

        return version_numbers(self._objects, self.name)

    def version(self, version: int | str = "latest") -> ModelVersion:
        """A version.

        Args:
            version: its number, "latest", or an alias. Cost of an alias: one listing and one or two reads.

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
        return numbers[-1]

    # ---- aliases -------------------------------------------------------------------------------------------

    def aliases(self) -> dict[str, int]:
        """The version that each alias points to. Cost: a listing, and one and a read an alias."""
        names = [name for name in self._objects.list_folders(layout.aliases_folder(self.name)) if layout.is_name(name)]
        found = {name: self._newest_record(name) for name in names}
        return {name: record.version for name, record in found.items() if record is not None}

    def resolve(self, alias: str = CHAMPION) -> AliasRecord:
        """Where an alias points now, since when, by whom and why.

        Cost: one listing; and a read, if this object has not read the newest record before. So it may be polled.

        Raises:
            NotFoundError: there is no such alias.
            StoreCorruptError: its newest record is damaged.
        """
        check_alias(alias)
        found = self._newest_record(alias)
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
        names = self._objects.list_folders(layout.aliases_folder(self.name))
        found = [record for name in names if layout.is_name(name) for record in self._records(name)]
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
        before = self._newest_record(alias)
        return self.move_alias(alias, self.version(version).number, before, action="set", why=why)

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

    def _newest_record(self, alias: str) -> AliasRecord | None:
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
