"""Umbel: massively parallel task graphs and sweeps on Ray, durable and resumable.

The names here are the public ones. Each is loaded when it is first used, so that importing umbel, or the pure core,
stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umbel.cluster.serving.serve import Serving, serve
    from umbel.runtime.answers.comparison import diff
    from umbel.runtime.answers.replay import replay
    from umbel.runtime.answers.why_failed import why_failed
    from umbel.runtime.driver.run import run
    from umbel.runtime.fused.configs import Configs
    from umbel.runtime.fused.decorator import fused
    from umbel.runtime.graph.data import read
    from umbel.runtime.graph.nodes import Node, Sweep
    from umbel.runtime.graph.product import product
    from umbel.runtime.graph.sql import read_sql
    from umbel.runtime.graph.sweep import sweep
    from umbel.runtime.graph.task import Task, task
    from umbel.runtime.leases.context import TrialContext, report, trial
    from umbel.runtime.leases.results import Best, Result
    from umbel.runtime.production.ab import ab
    from umbel.runtime.production.batch_prediction import predict
    from umbel.runtime.production.drift import drift, profile
    from umbel.runtime.production.served import record_outcomes
    from umbel.runtime.sharing.share import Share
    from umbel.runtime.tuner.tuner import Tuner
    from umbel.scheduler.errors import (
        AccessRefusedError,
        ClusterUnavailableError,
        CodeError,
        ElementFailedError,
        ExecutorError,
        GraphError,
        InternalError,
        NotFoundError,
        PromotionRefusedError,
        ResumeMismatchError,
        RunHeldError,
        RunInterrupted,
        RunStoppedError,
        SpaceError,
        StoreConflictError,
        StoreCorruptError,
        StoreError,
        StoreFullError,
        StoreUnavailableError,
        TrialUsageError,
        UmbelError,
        UntrustedError,
        UsageError,
    )
    from umbel.scheduler.search.domains import Constant
    from umbel.scheduler.search.pruning import Asha, Hyperband, Median
    from umbel.storage.registry.model_version import ModelVersion
    from umbel.storage.registry.registered_model import RegisteredModel
    from umbel.storage.registry.registry import Registry
    from umbel.storage.runs.run import Run
    from umbel.storage.store import Store, open_store

_ERRORS = (
    "AccessRefusedError ClusterUnavailableError CodeError ElementFailedError ExecutorError GraphError InternalError "
    "NotFoundError PromotionRefusedError ResumeMismatchError RunHeldError RunInterrupted RunStoppedError SpaceError "
    "StoreConflictError StoreCorruptError StoreError StoreFullError StoreUnavailableError TrialUsageError UmbelError "
    "UntrustedError UsageError"
)
_HOMES = {
    "umbel.runtime.production.batch_prediction": "predict",
    "umbel.cluster.serving.serve": "Serving serve",
    "umbel.runtime.production.ab": "ab",
    "umbel.runtime.answers.comparison": "diff",
    "umbel.runtime.leases.context": "TrialContext report trial",
    "umbel.runtime.graph.data": "read",
    "umbel.runtime.fused.decorator": "fused",
    "umbel.runtime.fused.configs": "Configs",
    "umbel.runtime.production.drift": "drift profile",
    "umbel.runtime.graph.nodes": "Node Sweep",
    "umbel.runtime.graph.product": "product",
    "umbel.runtime.answers.replay": "replay",
    "umbel.runtime.leases.results": "Best Result",
    "umbel.runtime.driver.run": "run",
    "umbel.runtime.production.served": "record_outcomes",
    "umbel.runtime.sharing.share": "Share",
    "umbel.runtime.graph.sql": "read_sql",
    "umbel.runtime.graph.sweep": "sweep",
    "umbel.runtime.graph.task": "Task task",
    "umbel.runtime.tuner.tuner": "Tuner",
    "umbel.runtime.answers.why_failed": "why_failed",
    "umbel.scheduler.errors": _ERRORS,
    "umbel.scheduler.search.domains": "Constant",
    "umbel.scheduler.search.pruning": "Asha Hyperband Median",
    "umbel.storage.registry.model_version": "ModelVersion",
    "umbel.storage.registry.registered_model": "RegisteredModel",
    "umbel.storage.registry.registry": "Registry",
    "umbel.storage.runs.run": "Run",
    "umbel.storage.store": "Store open_store",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [  # noqa: RUF022 - grouped by use
    # building graphs
    "task",
    "Task",
    "fused",
    "Configs",
    "product",
    "read",
    "read_sql",
    "sweep",
    "Sweep",
    "Node",
    # a dimension of a search that is the same value, whatever it is, in all trials
    "Constant",
    # which trials are stopped early
    "Asha",
    "Hyperband",
    "Median",
    # inside trials and later nodes
    "report",
    "trial",
    "TrialContext",
    "Result",
    "Best",
    # experiments written for Ray Tune
    "Tuner",
    # running and reading
    "run",
    "Share",
    "Run",
    "open_store",
    "Store",
    "diff",
    "replay",
    "why_failed",
    # registered models
    "Registry",
    "RegisteredModel",
    "ModelVersion",
    # models that are served
    "serve",
    "Serving",
    "predict",
    "ab",
    "record_outcomes",
    "profile",
    "drift",
    # errors
    "UmbelError",
    "UsageError",
    "SpaceError",
    "GraphError",
    "CodeError",
    "NotFoundError",
    "ResumeMismatchError",
    "UntrustedError",
    "TrialUsageError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "StoreConflictError",
    "StoreCorruptError",
    "RunHeldError",
    "ExecutorError",
    "AccessRefusedError",
    "ClusterUnavailableError",
    "ElementFailedError",
    "RunInterrupted",
    "RunStoppedError",
    "PromotionRefusedError",
    "InternalError",
]


def __getattr__(name: str) -> object:
    if name in ("gates", "torch"):
        return import_module(f"umbel.{name}")  # which load what they need when a name of them is used
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'umbel' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up is free
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
