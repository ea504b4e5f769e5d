"""Umbel: massively parallel task graphs and sweeps on Ray, durable and resumable.

The names here are the public ones. Each is loaded when it is first used, so that importing umbel, or the pure core,
stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umbel.cluster.serving import Serving, serve
    from umbel.runtime.ab import ab
    from umbel.runtime.batch_prediction import predict
    from umbel.runtime.comparison import diff
    from umbel.runtime.context import TrialContext, report, trial
    from umbel.runtime.data import read
    from umbel.runtime.drift import drift, profile
    from umbel.runtime.fused import fused
    from umbel.runtime.fused_configs import Configs
    from umbel.runtime.nodes import Node, Sweep
    from umbel.runtime.product import product
    from umbel.runtime.replay import replay
    from umbel.runtime.results import Best, Result
    from umbel.runtime.run import run
    from umbel.runtime.served import record_outcomes
    from umbel.runtime.share import Share
    from umbel.runtime.sql import read_sql
    from umbel.runtime.sweep import sweep
    from umbel.runtime.task import Task, task
    from umbel.runtime.tuner import Tuner
    from umbel.runtime.why_failed import why_failed
    from umbel.scheduler.errors import (
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
    from umbel.scheduler.pruning import Asha, Hyperband, Median
    from umbel.storage.model_version import ModelVersion
    from umbel.storage.registered_model import RegisteredModel
    from umbel.storage.registry import Registry
    from umbel.storage.run import Run
    from umbel.storage.store import Store, open_store

_ERRORS = (
    "ClusterUnavailableError CodeError ElementFailedError ExecutorError GraphError InternalError NotFoundError "
    "PromotionRefusedError ResumeMismatchError RunHeldError RunInterrupted RunStoppedError SpaceError "
    "StoreConflictError StoreCorruptError StoreError StoreFullError StoreUnavailableError TrialUsageError UmbelError "
    "UntrustedError UsageError"
)
_HOMES = {
    "umbel.runtime.batch_prediction": "predict",
    "umbel.cluster.serving": "Serving serve",
    "umbel.runtime.ab": "ab",
    "umbel.runtime.comparison": "diff",
    "umbel.runtime.context": "TrialContext report trial",
    "umbel.runtime.data": "read",
    "umbel.runtime.fused": "fused",
    "umbel.runtime.fused_configs": "Configs",
    "umbel.runtime.drift": "drift profile",
    "umbel.runtime.nodes": "Node Sweep",
    "umbel.runtime.product": "product",
    "umbel.runtime.replay": "replay",
    "umbel.runtime.results": "Best Result",
    "umbel.runtime.run": "run",
    "umbel.runtime.served": "record_outcomes",
    "umbel.runtime.share": "Share",
    "umbel.runtime.sql": "read_sql",
    "umbel.runtime.sweep": "sweep",
    "umbel.runtime.task": "Task task",
    "umbel.runtime.tuner": "Tuner",
    "umbel.runtime.why_failed": "why_failed",
    "umbel.scheduler.errors": _ERRORS,
    "umbel.scheduler.pruning": "Asha Hyperband Median",
    "umbel.storage.model_version": "ModelVersion",
    "umbel.storage.registered_model": "RegisteredModel",
    "umbel.storage.registry": "Registry",
    "umbel.storage.run": "Run",
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
