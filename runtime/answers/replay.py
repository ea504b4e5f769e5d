"""`umbel replay`: one trial of a run, run again here with the recorded code, data, config and seed.

All comes from the store: the function, the project's modules, the group's data. The trial's content key says whether
they are those of the record, to the last bit; then the metrics are compared bit for bit, or the error with the error.
What else may make a difference is said: packages and machine. Nothing is written.
"""

from __future__ import annotations

import json
import math
import pdb
import struct
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from umbel.runtime.answers.comparison import environment_changes
from umbel.runtime.answers.why_failed import read_error
from umbel.runtime.fused.alone import run_alone
from umbel.runtime.fused.batches import Fusion
from umbel.runtime.graph.sequences import item
from umbel.runtime.leases import context as trial_context
from umbel.runtime.leases.context import TrialContext, says_pruned
from umbel.runtime.leases.metrics import check_has, named_metrics
from umbel.runtime.leases.results import Result
from umbel.runtime.leases.values import INLINE_LIMIT_BYTES, ValueHandle, item_digest, value_digest
from umbel.runtime.provenance.environment import environment
from umbel.runtime.provenance.recorded_modules import recorded_modules
from umbel.runtime.provenance.recording import load_function, load_program
from umbel.scheduler.errors import NotFoundError, RunInterrupted, UmbelError, UsageError
from umbel.scheduler.identity import TrialKeys, group_key
from umbel.scheduler.search.adaptive import config_of
from umbel.scheduler.search.pruning import Mark
from umbel.storage.runs.checkpoints import list_checkpoints
from umbel.storage.runs.graph_record import SweepRecord, near_names
from umbel.storage.runs.run import Run
from umbel.storage.runs.trial_rows import PRUNED, SUCCEEDED, metric_column, trials_numbered
from umbel.storage.values.artifacts import get_artifact
from umbel.storage.values.codecs import decode
from umbel.storage.values.columns import python_rows

__all__ = ["Replay", "replay"]


@dataclass(frozen=True, slots=True)
class Replay:
    """How a trial went when it was run again, beside how it went in its run; prints as text."""

    run: str
    sweep: str
    trial: int
    config: Mapping[str, Any]
    seed: int
    #: "ok", "pruned" or "failed"; and as recorded: ok, pruned, failed, timeout or lost.
    status: str
    recorded_status: str
    metrics: Mapping[str, float]
    recorded_metrics: Mapping[str, float]
    #: The traceback, and the recorded one.
    error: str | None
    recorded_error: str | None
    #: True: code, data, config and seed are those of the record. False: see `differences`.
    same_inputs: bool
    #: Why the inputs are not those of the record, a line each.
    differences: tuple[str, ...]
    #: How this environment differs from the run's: "numpy 2.1 → 2.2".
    environment: tuple[str, ...]
    #: What the function returned as `umbel.Result(model=…)`.
    model: object = None
    #: True: it was one of a batch in its run (`umbel.fused`), and is a batch of one here.
    fused: bool = False

    @property
    def same(self) -> bool:
        """Whether it went as recorded: the same metrics to the bit, or an error of the same kind at the same place."""
        if (self.status in SUCCEEDED) != (self.recorded_status in SUCCEEDED):
            return False
        if self.status in SUCCEEDED:
            names = {*self.metrics, *self.recorded_metrics}
            return all(_same_bits(self.metrics.get(name), self.recorded_metrics.get(name)) for name in names)
        mine, theirs = (_where(error) for error in (self.error, self.recorded_error))
        return self.recorded_status == "failed" and mine == theirs

    @property
    def largest_difference(self) -> float:
        """How far metrics are from the recorded ones, relatively; infinite where one is missing or not finite."""
        found = 0.0
        for name in {*self.metrics, *self.recorded_metrics}:
            now, then = self.metrics.get(name), self.recorded_metrics.get(name)
            if not _same_bits(now, then):
                either = None if now is None or then is None else abs(now - then) / (max(abs(now), abs(then)) or 1.0)
                found = max(found, math.inf if either is None or math.isnan(either) else either)
        return found

    def text(self) -> str:
        """All of it, for people."""
        lines = [f"trial {self.trial} of {self.sweep} in {self.run}, seed {self.seed}"]
        lines += [f"  {name}: {value!r}" for name, value in self.config.items()]
        lines += [f"  differs from the record: {text}" for text in self.differences]
        if self.environment:
            shown = self.environment[:8]
            more = f", and {len(self.environment) - 8} more" if len(self.environment) > 8 else ""
            lines.append(f"  environment differs: {', '.join(shown)}{more}")
        else:
            lines.append("  environment: as in the run")
        lines += self._metric_lines() if self.status in SUCCEEDED else ["", (self.error or "").rstrip(), ""]
        return "\n".join([*lines, self._verdict()])

    def _metric_lines(self) -> list[str]:
        lines = []
        for name in dict.fromkeys([*self.metrics, *self.recorded_metrics]):
            now, then = self.metrics.get(name), self.recorded_metrics.get(name)
            verdict = "the same, to the bit" if _same_bits(now, then) else f"recorded: {then!r}"
            lines.append(f"  {name} = {now!r}  ({verdict})")
        return lines

    def _verdict(self) -> str:
        if self.same:
            what = "the metrics are the same to the bit" if self.status in SUCCEEDED else "it fails as it did"
            return f"reproduced: {what}"
        if self.status in SUCCEEDED and self.recorded_status in SUCCEEDED:
            if self.fused:
                return (
                    f"not the same to the bit: the metrics differ by up to {self.largest_difference:.1e}, relatively; "
                    "it was one of a batch, and batches of other sizes round otherwise"
                )
            return "not reproduced: the metrics differ"
        if self.status in SUCCEEDED:
            return f"not reproduced: recorded was {self.recorded_status}, and here it went well"
        if self.recorded_status in SUCCEEDED:
            return "not reproduced: recorded was a success, and here it fails"
        return f"not reproduced: recorded was {self.recorded_status}, {_where(self.recorded_error)[0]}"

    def __str__(self) -> str:
        return self.text()


def replay(
    run: Run,
    trial: int,
    sweep: object = None,
    *,
    config: Mapping[str, Any] | None = None,
    data: object = ...,
    debug: bool = False,
) -> Replay:
    """Run one trial again, here and now, with what is recorded.

    Args:
        run: the run.
        trial: index of the trial in its sweep.
        sweep: the sweep or its name; None: the only one.
        config: values that replace some of the config; needed for those that were left out as credentials.
        data: replaces the group's data; needed if they were not stored.
        debug: True stops in the debugger: where it fails if it failed, else where the function begins.

    Raises:
        UsageError: ``config`` names something that is not in the trial's config.
        NotFoundError: the trial has not ended, or the run was recorded without what this needs.
        StoreError: something can't be read, or needs a package that is missing here.

    Runs code that is stored in the run: replay runs of stores whose writers you trust. Time limits do not hold here.
    """
    record = run.graph.sweep(sweep)
    row = _row(run, record, trial)
    digest = (run.record.get("programs") or {}).get(record.name)
    if digest is None:
        raise NotFoundError(
            f"the run {run.name!r} was recorded without what running its trials again takes",
            hint="runs made by this version of Umbel have it",
        )
    program = load_program(run.objects, digest)
    group, position = divmod(trial, record.trials)
    keys = dict(zip(record.group_names, record.groups[group], strict=True)) if record.groups else {}
    batch = program["source"].batch(group_key(keys), position, position + 1)
    seed = int(batch.seeds[0])
    differences = [f"config: {', '.join(map(repr, config))} replaced"] if config else []
    with recorded_modules(run.source_files(), run.record.get("modules") or {}):
        given = _config(row, program, keys) if row.get("params") is not None else batch.configs(keys)[0]
        _check_names(config or {}, given)
        given.update(config or {})
        function, missing = load_function(program["function"])
        fusion = program.get("fusion")
        if fusion is not None:
            function = run_alone(function, Fusion(**{**fusion, "by": tuple(fusion["by"])}), seed)
        differences += [f"a credential is missing: {name}" for name in missing]
        arguments: list[object] = []
        data_digest = None
        if program["data"] is not None:
            value, data_digest = _data(run, record.name, program["data"], group) if data is ... else (data, "replaced")
            arguments.append(value)
            if data_digest != row["data"]:
                differences.append("the data are not those of the record")
        key = TrialKeys(program["code"], data_digest, value_digest)(given, seed)
        same_inputs = key == row["key"] and not missing
        if not same_inputs and not differences:
            differences.append("config: a value was left out of the record as a credential")
        if int(row["attempt"] or 1) > 1 and list_checkpoints(run.objects, run.id, record.name, trial):
            differences.append("it went on from a checkpoint that an earlier attempt saved, and a replay begins anew")
        context = TrialContext(record.name, keys, trial, seed, 1, tuple(each.metric for each in record.objectives))
        if row["status"] in PRUNED and row["steps"] is not None:
            context.course = _StoppedAt(row["steps"])
        recorded_failed = row["status"] not in SUCCEEDED
        status, metrics, error, model = _call(function, given, arguments, context, debug, recorded_failed)
    return Replay(
        run.name,
        record.name,
        trial,
        given,
        seed,
        status,
        row["status"],
        {metric_column(name).removeprefix("metric_"): value for name, value in metrics.items()},
        {name[7:]: value for name, value in row.items() if name.startswith("metric_") and value is not None},
        error,
        row["error"],
        same_inputs,
        tuple(differences),
        tuple(environment_changes(run.environment(row["host"]) or {}, environment())),
        model,
        fusion is not None,
    )


def _config(row: Mapping[str, Any], program: Mapping[str, Any], keys: Mapping[str, object]) -> dict[str, object]:
    """The config of a trial whose params a sampler suggested."""
    define = None if program["define"] is None else load_function(program["define"])[0]
    return config_of(json.loads(row["params"]), program["source"].space, define, keys)


def _check_names(replaced: Mapping[str, Any], config: Mapping[str, object]) -> None:
    for name in replaced:
        if name not in config:
            raise UsageError(
                "the trial's config has no such value to replace",
                got=name,
                expected="one of " + ", ".join(config),
                hint=near_names(name, config),
            )


def _row(run: Run, sweep: SweepRecord, trial: int) -> dict[str, Any]:
    rows = python_rows(trials_numbered(run.objects, run.id, sweep, np.asarray([trial], np.int64)))
    if not rows:
        raise NotFoundError(
            f"sweep {sweep.name!r} of the run {run.name!r} has no trial {trial} that has ended",
            got=trial,
            expected=f"a whole number from 0 to {sweep.size - 1}",
        )
    return rows[0]


def _data(run: Run, sweep: str, stored: Mapping[str, Any], group: int) -> tuple[object, str]:
    """The data of a group, and their digest."""
    if stored["from"] == "nowhere":
        raise NotFoundError(f"the data of sweep {sweep!r} are not in the store: {stored['why']}", hint="give data=…")
    if stored["from"] == "here":
        digests = stored["digests"]
        digest = digests[group % len(digests)]
        payload = stored["small"].get(digest)
        return get_artifact(run.objects, digest) if payload is None else decode(payload), digest
    entry = next(entry for entry in run.record["graph"]["nodes"] if entry["name"] == sweep)
    argument = next(argument for argument in entry["arguments"] if argument["kind"] != "axis")
    node, kind = str(argument["node"]), argument["kind"]
    element = group // int(argument.get("repeat", 1)) if kind == "each" else 0
    found = run.elements(node, ["digest", "length", "size"])
    row = next((row for row in python_rows(found) if row["element"] == element), None)
    if row is None or row["digest"] is None:
        raise NotFoundError(f"the data of group {group} of sweep {sweep!r} failed or are not there", got=node)
    value = run.value(node, element)
    if kind != "item":
        return value, row["digest"]
    place = group // int(argument.get("repeat", 1)) % int(row["length"])
    one = item(value, place)
    if row["size"] <= INLINE_LIMIT_BYTES:  # as `item_digest` has it
        return one, value_digest(one)
    return one, item_digest(ValueHandle(row["digest"], "", 0, None), place)


def _call(
    function: Callable[..., Any],
    config: dict[str, Any],
    arguments: list[object],
    context: TrialContext,
    debug: bool,
    stop_at_error: bool,
) -> tuple[str, dict[str, float], str | None, object]:
    outer = trial_context.current.context
    trial_context.current.context = context
    returned: Any
    model: object = None
    try:
        if debug and not stop_at_error:
            debugger = pdb.Pdb()
            returned = debugger.runcall(function, config, *arguments)
            if debugger.quitting:
                raise RunInterrupted("the debugger was left before the trial had ended")
        else:
            returned = function(config, *arguments)
        if isinstance(returned, Result):
            returned, model = returned.metrics, returned.model
        metrics = dict(context.reported)
        if returned is not None or not metrics:
            metrics.update(named_metrics(returned, context.metrics))
        check_has(metrics, context.metrics)
    except RunInterrupted:
        raise
    except BaseException as error:
        if context.pruned or says_pruned(error):
            return "pruned", dict(context.reported), None, None
        frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
        text = "".join(traceback.format_exception(type(error), error, frames))
        if isinstance(error, UmbelError):
            text = f"{type(error).__name__}: {error}"
        if debug and frames is not None:
            print(text)
            pdb.post_mortem(frames)
        return "failed", dict(context.reported), text, None
    finally:
        trial_context.current.context = outer
    return "pruned" if context.pruned else "ok", metrics, None, model


class _StoppedAt:
    """Stops a trial where it was stopped when it was recorded: what others reported then is not asked again."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.marks: list[Mark] = []

    def report(self, step: int, value: float) -> bool:
        """Whether this is the step, or past it."""
        return step >= self._step

    def announce(self, step: int, value: float) -> None:
        """Nobody is compared with it."""

    def announce_rank(self, step: int, value: float) -> None:
        """Nobody is compared with it."""

    def end(self, status: str) -> None:
        """Nothing to note."""


def _where(error: str | None) -> tuple[str, str]:
    """The kind of an error, and the function that raised it, without the path and line of the file."""
    kind, place, _ = read_error("failed", error or "")
    return kind, place.partition(" (")[0]


def _same_bits(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return struct.pack("<d", a) == struct.pack("<d", b) or (math.isnan(a) and math.isnan(b))
