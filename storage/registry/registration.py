"""How does a run become a version of a registered model?

Winners are found, their models loaded, written in a format that needs as little trust as can be, asked the example
inputs, and named by a record that is created last: so a version is there whole or not at all. Loading unpickles, as
`Run.load_model` does: whoever registers a run trusts those who made it. It must not know aliases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from umbel.scheduler.errors import StoreConflictError, StoreUnavailableError, UmbelError, UsageError
from umbel.scheduler.words import counted
from umbel.storage import layout
from umbel.storage.documents import create_document
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.registry.io_schema import check_schema, infer_schema, is_schema, schema_mistake
from umbel.storage.registry.model_formats import encode_model, model_format
from umbel.storage.registry.model_rows import FORMAT, GROUP, SIZE, by_columns, encode_rows
from umbel.storage.registry.predicting import as_taken, is_model, not_a_model, plain, predict, taken_as
from umbel.storage.registry.profiles import create_profile
from umbel.storage.registry.records import VersionRecord, check_model
from umbel.storage.registry.training_data import describe_training_data
from umbel.storage.registry.winners import Winners, find_winners, named
from umbel.storage.runs.run import Run
from umbel.storage.values.artifacts import put_artifact, put_content, read_artifact
from umbel.storage.values.codecs import Encoded, decode, digest_of
from umbel.storage.values.columns import binaries, integers, strings
from umbel.storage.values.packs import MODEL, MODEL_AT, MODEL_PAYLOAD, pack_models, read_packed

__all__ = ["create_version", "register", "version_numbers"]

#: Smaller models are packed, as those of trials are.
_PACKED_LIMIT_BYTES = 2**20
#: Bytes of models that wait to be packed.
_WAITING_LIMIT_BYTES = 64 * 2**20
#: Models that are read at once, from stores whose answers take time.
_READERS = 16
#: How often a number that another process has taken is followed by the next one.
_MAX_ATTEMPTS = 50
_MAX_NAMED = 5
#: Options of `umbel run` that stop it.
_LIMITS = frozenset({"--deadline", "--budget", "--max-failures"})


@dataclass(frozen=True, slots=True)
class _Example:
    """What is known of a model's inputs."""

    schema: Mapping[str, Any] | None
    #: Plain data to ask the models with, if `given`.
    smoke: Any
    given: bool
    takes: str


def register(
    objects: ObjectStore,
    run: Run,
    *,
    model: str,
    by: str | Sequence[str] | None = None,
    models: object = None,
    sweep: object = None,
    metric: str | None = None,
    why: str = "",
    smoke: object = None,
    inputs: object = None,
    outputs: Mapping[str, Any] | None = None,
    profile: bool = True,
) -> VersionRecord:
    """Make the next version of a registered model; see `Registry.register`."""
    check_model(model)
    _check_done(run)
    example = _example(inputs, smoke)
    outputs = None if outputs is None else check_schema(outputs, "outputs")
    winners = find_winners(run, [by] if isinstance(by, str) else by, models, sweep, metric)
    rows, answer = _with_models(objects, run, winners, example, outputs)
    if outputs is None and example.given:
        outputs = infer_schema(answer)
    for name, value in (
        ("run_created", run.record.get("created")),
        ("source", run.record.get("source")),
        ("environment", run.record.get("environment")),
    ):
        rows = rows.append_column(name, strings([value] * len(rows)))
    rows = rows.append_column("registered", pa.nulls(len(rows), pa.int64()))
    described = describe_training_data(run, winners.rows, example.smoke) if profile and example.given else None
    record = create_version(
        objects,
        rows,
        VersionRecord(
            model=model,
            number=1,
            rows="",
            groups=1,
            by=winners.by,
            by_columns=by_columns(winners.by),
            metric=winners.metric,
            mode=winners.mode,
            inputs=example.schema,
            outputs=outputs,
            takes=example.takes,
            smoke=_put_json(objects, example.smoke) if example.given else None,
            run=run.id,
            node=None if models is None else run.graph.node(models).name,
            why=why,
        ),
    )
    if described is not None:
        create_profile(objects, model, record.number, described, sampled=True)
    return record


def create_version(objects: ObjectStore, rows: pa.Table, record: VersionRecord) -> VersionRecord:
    """Store a version under the next number that is free.

    Args:
        objects: the store.
        rows: what `umbel.storage.registry.model_rows.read_rows` reads.
        record: what it says; number, rows and groups are filled in here.
    """
    record = replace(record, rows=put_artifact(objects, encode_rows(rows)), groups=len(rows))
    number = max(version_numbers(objects, record.model), default=0) + 1
    for attempt in range(_MAX_ATTEMPTS):
        record = replace(record, number=number + attempt)
        try:
            create_document(objects, layout.version_record(record.model, record.number), record.as_dict(), unique=True)
        except StoreConflictError:
            continue  # another process has just made a version
        return record
    raise StoreUnavailableError(
        f"no number could be had for a version of {record.model!r}: others took {_MAX_ATTEMPTS} in a row",
        hint="try again",
    )


def version_numbers(objects: ObjectStore, model: str) -> list[int]:
    """The numbers of a model's versions, in order. Cost: one listing."""
    found = map(layout.record_number, objects.list(layout.versions_folder(model)))
    return sorted(number for number in found if number is not None)


# ---- what is checked first -------------------------------------------------------------------------------------


def _check_done(run: Run) -> None:
    status = run.status
    if status == "done":
        return
    command = _again(run.record.get("command") or ()) or "the command that began it"
    hints = {
        "running": "wait until it has ended; umbel show tells how far it is",
        "failed": f"umbel why-failed {run.name} tells why; then run it again: {command}",
    }
    raise UsageError(
        f"the run {run.name!r} is not finished",
        got=f"{status}{f': {run.reason}' if run.reason else ''}",
        expected="done",
        hint=hints.get(status, f"running it again finishes it: {command}"),
    )


def _again(command: Sequence[object]) -> str:
    """The command of a run without the limits that may have stopped it."""
    words = list(map(str, command))
    if words[1:2] != ["run"]:  # a program's own options may mean anything
        return " ".join(words)
    kept: list[str] = []
    is_value = False
    for word in words:
        name, equals, _ = word.partition("=")
        if not is_value and name not in _LIMITS:
            kept.append(word)
        is_value = not is_value and name in _LIMITS and not equals
    return " ".join(kept)


def _example(inputs: object, smoke: object) -> _Example:
    schema: Mapping[str, Any] | None = None
    if is_schema(inputs):
        schema, given = check_schema(inputs, "inputs"), smoke
    else:
        given = smoke if smoke is not None else inputs
    if given is None:
        return _Example(schema, None, False, "json")
    said = plain(given)
    if schema is None:
        schema = infer_schema(plain(inputs) if inputs is not None else said)
    mistake = schema_mistake(schema, said)
    if mistake is not None:
        raise UsageError(
            "the example (smoke=) is not what the schema of inputs says",
            got=mistake,
            expected="what servers would take",
            hint="mend one of them",
        )
    return _Example(schema, said, True, taken_as(given))


def _put_json(objects: ObjectStore, value: object) -> str:
    data = json.dumps(value, ensure_ascii=False).encode()
    digest = digest_of(data)
    put_content(objects, layout.artifact(digest), data)
    return digest


# ---- models ----------------------------------------------------------------------------------------------------


def _with_models(
    objects: ObjectStore, run: Run, winners: Winners, example: _Example, outputs: Mapping[str, Any] | None
) -> tuple[pa.Table, Any]:
    """The rows with each model as it is registered, and what the first of them answers to the example."""
    texts = winners.rows[GROUP].to_pylist()
    digests: list[str] = []
    places: list[str | None] = []
    formats: list[str] = []
    sizes: list[int] = []
    payloads: list[bytes | None] = []
    waiting_bytes = 0
    answers: list[Any] = []
    wrong: dict[str, list[str]] = {}  # groups by what is wrong
    to_do = "try run.load_model(digest).predict(inputs); inputs=np.array(...) hands arrays to the models"
    for text, (digest, at, payload, data) in zip(texts, _model_data(objects, winners), strict=True):
        try:
            model = decode(data)
            if not is_model(model) and model_format(data) == "pickle":  # arrays and tables may be kept as they are
                raise not_a_model(model)
            if example.given:
                answers.append(plain(predict(model, as_taken(example.smoke, example.takes))))
                mistake = None if outputs is None else schema_mistake(outputs, answers[-1])
                if mistake is not None:
                    wrong.setdefault(f"its answer is not what the schema of outputs says: {mistake}", []).append(text)
                    continue
            encoded = _registered(data, digest, model)
        except UmbelError as error:
            wrong.setdefault(error.what + (f" ({error.got})" if error.got else ""), []).append(text)
            to_do = error.hint or to_do
            continue
        except Exception as error:  # whatever the model raises
            wrong.setdefault(f"{type(error).__name__}: {error}"[:500], []).append(text)
            continue
        if encoded.digest == digest and payload is None:
            place, packed = at, None
        elif len(encoded.data) <= _PACKED_LIMIT_BYTES and waiting_bytes < _WAITING_LIMIT_BYTES:
            place, packed = None, encoded.data
            waiting_bytes += len(encoded.data)
        else:
            put_artifact(objects, encoded)
            place, packed = None, None
        digests.append(encoded.digest)
        places.append(place)
        formats.append(encoded.format)
        sizes.append(len(encoded.data))
        payloads.append(packed)
    if wrong:
        asked = " or asked the example" if example.given else ""
        causes = [f"{named(groups)}: {why}" for why, groups in wrong.items()]
        raise UsageError(
            f"the models of {sum(map(len, wrong.values()))} of {counted(len(texts), 'group')} of the run {run.name!r} "
            f"can't be loaded{asked}",
            got="; ".join(causes[:_MAX_NAMED]) + ("; …" if len(causes) > _MAX_NAMED else ""),
            expected="models with predict(inputs), or callables, that take inputs= as JSON has it"
            if example.given
            else "models with predict(inputs), or callables",
            hint=to_do,
        )
    rows = winners.rows.drop_columns([MODEL, MODEL_AT])
    rows = rows.append_column(MODEL, strings(digests)).append_column(MODEL_AT, strings(places))
    rows = rows.append_column(FORMAT, strings(formats)).append_column(SIZE, integers(sizes))
    if any(each is not None for each in payloads):
        rows = pack_models(objects, rows.append_column(MODEL_PAYLOAD, binaries(payloads)))
    return rows, answers[0] if answers else None


def _registered(data: bytes, digest: str, model: object) -> Encoded:
    """A model in the format that it is registered in. One that can only be pickled stays as it is."""
    if model_format(data) == "pickle":
        encoded = encode_model(model)
        if encoded.format != "pickle":
            return encoded
    return Encoded(model_format(data), data, digest)


def _model_data(objects: ObjectStore, winners: Winners) -> Iterator[tuple[str, str | None, bytes | None, bytes]]:
    """Of each winner the digest of its model, its place, its bytes if no artifact or pack holds them, and its bytes."""
    rows = winners.rows
    wanted = list(zip(rows[MODEL].to_pylist(), rows[MODEL_AT].to_pylist(), winners.payloads, strict=True))

    def read(each: tuple[str, str | None, bytes | None]) -> bytes:
        digest, at, payload = each
        if payload is not None:
            return payload
        return read_artifact(objects, digest) if at is None else read_packed(objects, at, digest)

    for each, data in zip(wanted, _read_ahead(objects, read, wanted), strict=True):
        yield (*each, data)


def _read_ahead(objects: ObjectStore, read: Any, wanted: Sequence[Any]) -> Iterable[bytes]:
    if objects.is_local_path or objects.is_process_local:
        return map(read, wanted)
    return _in_blocks(read, wanted)


def _in_blocks(read: Any, wanted: Sequence[Any]) -> Iterator[bytes]:
    """Some are read at once, and no more are held."""
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(wanted), _READERS):
            yield from readers.map(read, wanted[start : start + _READERS])
