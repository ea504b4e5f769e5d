"""`umbel.run`: carry a graph out, make what comes of it durable, and resume what a run of this name had begun."""

from __future__ import annotations

import functools
import secrets
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from umbel.runtime.driver.ledger import Ledger
from umbel.runtime.driver.limits import Limits
from umbel.runtime.driver.plan import Plan, make_plan
from umbel.runtime.driver.progress import Progress, format_count, format_duration, make_progress
from umbel.runtime.driver.resume import check_same
from umbel.runtime.driver.session import Session
from umbel.runtime.executors.inline import InlineExecutor
from umbel.runtime.executors.ray_executor import RayExecutor
from umbel.runtime.graph.literals import Literals
from umbel.runtime.graph.nodes import Node, Sweep
from umbel.runtime.leases import context
from umbel.runtime.provenance.credentials import known
from umbel.runtime.provenance.fingerprint import archive_names, source_zip
from umbel.runtime.provenance.recording import modules_of, record_programs, source_files
from umbel.runtime.provenance.sitting import describe_process
from umbel.runtime.search.study_identity import study_identity
from umbel.runtime.sharing.share import Share, share_of
from umbel.scheduler.engine import Engine, Restored
from umbel.scheduler.errors import RunInterrupted, RunStoppedError, StoreError, UmbelError, UsageError
from umbel.scheduler.graph import Graph, NodeId
from umbel.scheduler.words import counted
from umbel.storage.layout import check_name
from umbel.storage.lineage.mentions import write_mentions
from umbel.storage.redaction import redact_url
from umbel.storage.runs.memo import Memo, mark_sweep
from umbel.storage.runs.ownership import Ownership
from umbel.storage.runs.run import Run
from umbel.storage.runs.segments import SegmentWriter
from umbel.storage.runs.study_memo import StudyMemo
from umbel.storage.store import Store, open_store
from umbel.storage.values.packs import pack_models

__all__ = ["default_store", "run"]

EXECUTORS = ("ray", "inline")
#: Seconds to wait for a store that does not answer when a run has ended by an error, which may well be that one.
RELEASE_PATIENCE_S = 5.0


def default_store() -> str:
    """The store used when none is named: ``$UMBEL_STORE``, else ``./umbel-store``."""
    import os

    return os.environ.get("UMBEL_STORE") or "umbel-store"


def in_throw_away_folder(url: str) -> bool:
    """Whether a store lies where Ray unpacks a job's ``working_dir``, which it removes when it likes."""
    place = url.removeprefix("file://")
    return "://" not in place and "/runtime_resources/working_dir_files/" in place


def run(
    target: Node | Sequence[Node],
    *,
    store: str | None = None,
    name: str | None = None,
    executor: str = "ray",
    address: str | None = None,
    workers: int | None = None,
    progress: bool | str | None = None,
    max_failures: int | None = None,
    deadline_s: float | None = None,
    budget: Mapping[str, float] | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    share: Share | bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Run:
    """Run a graph and wait for it. If a run of this name exists in the store, it is resumed.

    Args:
        target: the node (or nodes) whose values are wanted.
        store: a path or any fsspec URL; default ``$UMBEL_STORE``, else ``./umbel-store``.
        name: the run's name; without one it gets a name made of the time, and can be resumed by giving that.
        executor: "ray", or "inline" for this process without Ray.
        address: the Ray cluster to join; default ``$RAY_ADDRESS``, else one is started on this machine.
        workers: at most this many workers of each kind; default: as many as fit on the cluster.
        progress: None or "auto" (a bar on a terminal, lines elsewhere), "bar", "plain", or "quiet"/False.
        max_failures: stop when more elements than this have failed.
        deadline_s: stop after this many seconds.
        budget: stop when ``{"trials": n}`` have ended, or ``{"core_seconds": s}`` have been spent in this sitting. That
            is a limit on the run, which is "stopped" there and can go on; a budget that is spent where it helps most,
            after which a sweep is done, is given to `umbel.sweep`.
        fresh: run all trials, even those that an earlier run of the store has done with the same code, data, config and
            seed. Otherwise these are taken over, and ``reused_from`` in the trials table says from where.
        retry_failed: if the run exists, run again what did not end well in it. Otherwise that stays as it is.
        share: this run's part in a Ray cluster that it joins, where other runs may be: tenant, weight, priority and
            bounds. Default: ``$UMBEL_SHARE``, else ``[tool.umbel.share]`` of pyproject.toml, else equal shares for
            users. False: it takes what it can get. Given here, it counts on a cluster that this process started, too.
        storage_options: for fsspec, such as endpoint and credentials.

    Returns:
        The run, for reading its results. Failed trials do not raise: see `Run.failures`. If a deadline or budget
        stopped it, its status is "stopped", and running it again goes on.

    Raises:
        UsageError: an argument or the graph is wrong; nothing was started.
        ResumeMismatchError: the run of this name was made by another graph, space or code.
        RunHeldError: another live process is writing it.
        StoreError: the store can't be used.
        RunStoppedError: there were more failures than ``max_failures``, or a task says ``on_failure="stop"``; also if
            nothing was left to do.
        RunInterrupted: Ctrl-C; what had finished is durable.
    """
    started = time.monotonic()
    if executor not in EXECUTORS:
        raise UsageError(
            "unknown executor",
            got=repr(executor),
            expected='"ray" or "inline"',
            hint='"ray" uses all processors of a machine or cluster; "inline" runs here, one trial after another',
        )
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise UsageError(
            "workers is not a count",
            got=repr(workers),
            expected="a whole number ≥ 1, or None",
            hint="leave it out for as many as fit",
        )
    if executor == "ray" and context.in_worker:
        raise UsageError(
            "a task tried to start a run on the workers that it occupies itself, which would wait for itself",
            expected='executor="inline" for a run inside a task',
            hint="or bind the inner work into the outer graph",
        )
    limits = Limits.of(max_failures, deadline_s, budget)
    part = share_of(share)
    run_id = name if name is not None else _generated_name()
    check_name("run", run_id)
    plan = make_plan(target)
    shown = make_progress("auto" if progress is None else progress)
    opened = open_store(default_store() if store is None else store, storage_options)
    if in_throw_away_folder(opened.url):
        warnings.warn(
            f"the store {opened.url} lies in the folder that Ray keeps for this job only, and is thrown away with it; "
            "name another by store= or $UMBEL_STORE: s3://bucket/folder, or a shared folder's absolute path",
            stacklevel=2,
        )
    opened.prepare()
    literals = Literals(plan, opened.objects)
    graph = plan.describe(lambda planned: literals.digests(planned.id, len(planned.node.arguments)))
    existing = opened.load_record(run_id)
    if existing is not None:
        check_same(run_id, existing, graph)
    files = source_files({path for code in plan.code.values() for path in code.files})
    about = functools.cache(functools.partial(describe_process, opened, files))
    ownership = Ownership.acquire(opened.objects, run_id)
    try:
        record = existing
        if record is None:
            record = _record(run_id, graph, plan, files, opened, about())
            opened.create_run(record)
        how = _How(executor, address, workers, limits, fresh, retry_failed, part, isinstance(share, Share))
        reason = _carry_out(plan, literals, opened, record, ownership, shown, how, started, about)
    except BaseException as error:
        reasons = {RunInterrupted: "interrupted", KeyboardInterrupt: "interrupted", RunStoppedError: "stopped"}
        with opened.objects.patience(RELEASE_PATIENCE_S):
            _release_quietly(
                ownership, reasons.get(type(error), "failed"), known.scrub(f"{type(error).__name__}: {error}")
            )
        raise
    ownership.release(reason)
    return opened.run(run_id)


def _release_quietly(ownership: Ownership, reason: str, detail: str) -> None:
    """Let go of the run, if the store allows it: if not, the claim ends with this process."""
    try:
        ownership.release(reason, detail)
    except StoreError:
        return  # the error under way says what is wrong with the store


@dataclass(frozen=True, slots=True)
class _How:
    """In what way a run is carried out; see `run`."""

    executor: str
    address: str | None
    workers: int | None
    limits: Limits
    fresh: bool
    retry_failed: bool
    share: Share | None
    #: Whether it was asked for by the run's own argument.
    share_asked: bool


def _carry_out(
    plan: Plan,
    literals: Literals,
    store: Store,
    record: Mapping[str, Any],
    ownership: Ownership,
    shown: Progress,
    how: _How,
    started: float,
    about: Callable[[], dict[str, Any]],
) -> str:
    """Run what is not done; returns how it ended. ``about`` says who does."""
    run_id = str(record["id"])
    writer = SegmentWriter(store.objects, finish=functools.partial(pack_models, store.objects))
    try:
        ledger = Ledger(plan, literals, store.objects, run_id, writer, time.time, shown.warn)
        restored = ledger.restore(retry_failed=how.retry_failed)
        graph = _with_memos(plan, ledger, store, record, fresh=how.fresh)
        engine = Engine(
            graph,
            restored=restored,
            jitter_seed=secrets.randbits(32),
            allowance=_allowance(graph, how.limits, restored),
        )
        session = Session(plan, engine, ledger, writer, ownership, shown, how.limits)
        resumed = session.done
        session.catch_up()
        shown.start(run_id, store.url, session.total, resumed, growing=session.growing)
        if not session.finished and session.stop_reason is None:
            store.add_sitting(run_id, ownership.record.acquired, ownership.record.token, about())
            if how.executor == "inline":
                InlineExecutor(plan, store.objects, run_id).run(session)
            else:
                RayExecutor(
                    plan, store.objects, run_id, how.address, how.workers, how.share, share_own=how.share_asked
                ).run(session)
        session.check_limits()
        shown.update(session.snapshot())
    except BaseException as error:
        _close_quietly(writer)
        why = f"an error, {error.what}" if isinstance(error, UmbelError) else "an error"
        shown.finish(f"stopped by {why}; what was finished before is durable, and running the same again goes on")
        raise
    writer.close()
    if session.stopped_by_failures or ((session.interrupted or session.stop_reason) and not session.finished):
        ended = "interrupted" if session.stop_reason is None else f"stopped, because {session.stop_reason}"
        text = f"{ended}: {format_count(session.done)} of {format_count(session.total)} are done and durable; " + (
            "a higher limit goes on" if session.needs_higher_limit else "run the same command again to go on"
        )
        shown.finish(text)
        if session.stop_reason is None:
            raise RunInterrupted(f"run {run_id!r} was {text}")
        if session.stopped_by_failures:
            raise RunStoppedError(
                f"run {run_id!r} was {text}",
                hint=f"umbel failures {run_id} tells what failed; retry_failed=True (--retry-failed) runs that again",
            )
        return "stopped"
    for problem in ledger.sizes.problems.values():
        shown.finish(f"done and durable: {counted(session.done, 'element')}; the rest of the graph has no sizes")
        raise problem
    if resumed < session.total or store.load_end(run_id) is None:
        counts = {"total": session.total, "failed": ledger.failed}
        write_mentions(store.objects, record, ledger.sizes.found, ledger.mentions)
        store.end_run(run_id, {"status": "done", "counts": counts, "sizes": ledger.sizes.found})
    for text in ledger.warnings():
        shown.warn(text)
    shown.finish(_summary(run_id, session, ledger, resumed, time.monotonic() - started))
    return "done"


def _with_memos(plan: Plan, ledger: Ledger, store: Store, record: Mapping[str, Any], *, fresh: bool) -> Graph:
    """The plan's graph, with the sweeps marked of whose trials some need not run: an earlier run may have done them, or
    a budget does not reach them."""
    specs = list(plan.graph)
    for planned in plan.nodes:
        node = planned.node
        if planned.id in ledger.budgets:
            specs[planned.id] = replace(specs[planned.id], recalls=True)
        if not isinstance(node, Sweep) or not node.task.cache:
            continue
        kind: type[Memo | StudyMemo] = Memo
        marked: str | None = plan.code[planned.id].digest
        if node.search is not None:
            # Which of its trials are pruned depends on when others were heard of, and so does what is suggested next;
            # and where groups learn from one another that depends on other groups.
            kind = StudyMemo
            own = node.pruning is None and not node.search.transfer
            marked = study_identity(marked or "", node.search, node.metrics) if own else None
        if marked is None:
            continue
        mark_sweep(store.objects, marked, str(record["created"]), str(record["id"]), planned.name)
        if not fresh:
            memo = kind(store.objects, marked, str(record["id"]), node.metrics, node.keep)
            if memo:
                ledger.earlier.look_into(planned.id, memo)
                specs[planned.id] = replace(specs[planned.id], recalls=True)
    return Graph(specs)


def _allowance(graph: Graph, limits: Limits, restored: Mapping[NodeId, Restored]) -> int | None:
    """How many trials may be granted, if the run has a budget of them."""
    if limits.trials is None:
        return None
    done = sum(len(restored[spec.id].done) for spec in graph if spec.counts and spec.id in restored)
    return max(0, int(limits.trials) - done)


def _summary(run_id: str, session: Session, ledger: Ledger, resumed: int, elapsed_s: float) -> str:
    failed = f", {format_count(ledger.failed)} failed (umbel failures {run_id})" if ledger.failed else ""
    targets = _failed_targets(session)
    if targets:
        named = ", ".join(map(repr, targets))
        return (
            f"nothing came of {named}, which {'was' if len(targets) == 1 else 'were'} asked for: "
            f"{counted(session.total, 'element')} ended{failed}"
        )
    if resumed == session.total:
        return f"everything is done already: {counted(session.total, 'element')}{failed}"
    again = f", {format_count(resumed)} of them before" if resumed else ""
    taken_over = ledger.earlier.reused
    reused = f", {format_count(taken_over)} taken over from earlier runs" if taken_over else ""
    return f"done: {counted(session.total, 'element')}{again}{reused}{failed} in {format_duration(elapsed_s)}"


def _failed_targets(session: Session) -> list[str]:
    """Of what was asked for, the nodes of which nothing came: all their elements failed; see `Run.failed_targets`."""
    states = ((session.plan.nodes[target].name, session.engine.nodes[target]) for target in session.plan.targets)
    return [
        name
        for name, node in states
        if node.finished and (node.unsizable is not None or (node.size and len(node.failed) == node.size))
    ]


def _close_quietly(writer: SegmentWriter) -> None:
    """Save what can be saved; the error under way says what went wrong."""
    try:
        writer.close()
    except Exception as error:
        warnings.warn(f"the last results could not be written: {error}", stacklevel=2)


def _record(
    run_id: str, graph: list[dict[str, object]], plan: Plan, files: list[Path], store: Store, about: Mapping[str, Any]
) -> dict[str, object]:
    """Who, when, what: the run's record."""
    root = Path.cwd()
    programs, artifacts = record_programs(plan, store.objects)
    return {
        "format": 1,
        "id": run_id,
        "name": run_id,
        "created": datetime.now(UTC).isoformat(),
        **about,
        "store": redact_url(store.url),
        "source": store.put_code(source_zip(files, root)) if files else None,
        "modules": modules_of(archive_names(files, root)),
        "programs": programs,
        "artifacts": artifacts,
        "graph": {"nodes": graph},
        "targets": [plan.nodes[target].name for target in plan.targets],
    }


def _generated_name() -> str:
    return f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
