"""Which models are registered in a store, and how does a run become a version of one?

It must not know aliases, and must not run anything but models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.storage import layout
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.records import check_model
from umbel.storage.registry.registered_model import RegisteredModel
from umbel.storage.runs.graph_record import near_names
from umbel.storage.runs.run import Run

__all__ = ["RegisteredModel", "Registry"]


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
        metric: str | None = None,
        why: str = "",
        inputs: object = None,
        smoke: object = None,
        outputs: Mapping[str, Any] | None = None,
        profile: bool = True,
    ) -> ModelVersion:
        """Make the next version of a registered model from the winners of a run: one model a group.

        Each model is loaded (which unpickles it, as `Run.load_model` does), and asked the example if there is one.

        Args:
            run: a run of this store that is done, or its name.
            model: the name of the registered model; a new one is made.
            by: the group keys. Fewer than the sweep has: the best of all groups that agree in these. None: all.
            models: the node, or its name, whose elements are the models, one a group in the order of the groups
                (``refit.map(sweep.best(), data)``). None: those that the best trials returned in `umbel.Result`. If
                they return `umbel.Result` too, its metrics stand instead of the trials' of these names.
            sweep: which sweep, if the run has several.
            metric: of a sweep that is judged by several metrics the one by which a group's winner is taken from its
                Pareto set.
            why: a note for people.
            inputs: example inputs, from which the JSON schema of inputs is inferred, and with which every model is
                asked now and before the version is promoted; or a JSON schema (a dict with "type" or "$schema").
                Arrays and tables as an example mean that models are given such.
            smoke: example inputs, if ``inputs`` is a schema.
            outputs: the JSON schema of outputs; None: inferred from what the first model answers.
            profile: if there is an example, describe the fields of it as they are in the data that the winners were
                trained on (the sweep's ``data=``), for `umbel.drift`; a sample of rows of at most 16 groups.

        Raises:
            NotFoundError: there is no such run, sweep or node.
            UsageError: a name can't be used; the run is not done; a schema is none, refers to what lies outside of it,
                or the example is not what it says; groups have no winner or no model, or their models can't be loaded
                or asked: named, with what to do.
            StoreError: the store can't be read or written.

        Cost: each model is read and decoded once; one object for all small models that need a new format, one for the
        table, one for the record. For the profile, the data of at most 16 groups and 256 MiB are read.
        """
        from umbel.storage.registry.registration import register
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
            metric=metric,
            why=why,
            smoke=smoke,
            inputs=inputs,
            outputs=outputs,
            profile=profile,
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
