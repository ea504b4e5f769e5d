"""The commands of registered models: register, models, promote, rollback, history.

Like all commands they import what they need when they run.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umbel.runtime.cli.options import (
    JsonOption,
    LimitOption,
    RunArgument,
    StoreOption,
    SweepOption,
    open_for_command,
    print_json,
)

if TYPE_CHECKING:
    from umbel.scheduler.errors import StoreCorruptError
    from umbel.storage.registry.records import AliasRecord
    from umbel.storage.registry.registered_model import RegisteredModel

__all__ = ["register_commands"]

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name.")]
AliasOption = Annotated[str, typer.Option("--alias", help="Which alias.")]
WhyOption = Annotated[str, typer.Option("--why", help="A note for people.")]

#: Columns of a terminal from which gates are shown with what they were given.
_WIDE = 110


def register_commands(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (register, models, promote, rollback, history):
        app.command(command.__name__)(command)


def register(
    name: RunArgument,
    model: Annotated[str, typer.Option("--model", help="The registered model's name; a new one is made.")],
    by: Annotated[list[str] | None, typer.Option("--by", help="A group key; may be repeated. Default: all.")] = None,
    node: Annotated[
        str | None, typer.Option("--models", metavar="NODE", help="The node that made the models, if not the trials.")
    ] = None,
    sweep: SweepOption = None,
    metric: Annotated[
        str | None, typer.Option(help="Which metric chooses the winner, if the sweep is judged by several.")
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(metavar="JSON|FILE", help="Example inputs, or a JSON schema: JSON, or a file that holds it."),
    ] = None,
    profile: Annotated[
        bool, typer.Option(help="Describe the data that the winners were trained on, for umbel drift.")
    ] = True,
    why: WhyOption = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the next version of a registered model from the winners of a run: one model a group.

    The models are loaded, which runs code of those who made the run.
    """
    from umbel.scheduler.words import counted
    from umbel.storage.registry.profiles import read_profile
    from umbel.storage.registry.trust import is_trusted

    given = None if inputs is None else _json(inputs)
    opened = open_for_command(store)
    version = opened.registry.register(
        name,
        model=model,
        by=by or None,
        models=node,
        sweep=sweep,
        metric=metric,
        inputs=given,
        why=why,
        profile=profile,
    )
    if as_json:
        print_json({**version.record, "model": model, "version": version.number})
        return
    formats = sorted(set(version.table()["model_format"].to_pylist()))
    count = len(version.groups)
    typer.echo(
        f"{model} version {version.number}: {count:,} {'model' if count == 1 else 'models'} of {name} "
        f"({', '.join(formats)})"
    )
    described = read_profile(opened.objects, model, version.number)
    if described is not None:
        fields = counted(len(described.inputs), "field")
        typer.echo(f"  training data for umbel drift: {fields}, {counted(described.rows, 'row')}")
    elif profile:
        why_none = "no example inputs are given (--inputs)"
        if version.version_record.smoke is not None:
            why_none = (
                "the run keeps no data= with the example's fields; "
                f"umbel.profile(table).save({model!r}, {version.number}) keeps what you give it"
            )
        typer.echo(f"  no training data for umbel drift: {why_none}")
    asks = "pickle" in formats and version.version_record.smoke is not None and not is_trusted(opened.objects)
    typer.echo(f"umbel promote {model} {version.number}{' --trust' if asks else ''} puts it to use")


def models(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this one, with its versions.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 20,
) -> None:
    """List the registered models, or the versions of one."""
    from umbel.runtime.cli.tables import print_rows
    from umbel.storage.registry.registered_model import RegisteredModel

    opened = open_for_command(store)
    damaged: list[StoreCorruptError] = []
    if name is not None:
        rows = _version_rows(opened.registry.model(name), damaged)
        if as_json:
            print_json(rows)
        else:
            for row in rows:
                row["created"] = _when(row["created"])
                row["aliases"] = ", ".join(row["aliases"]) or None
                row["of"] = row["run"] or "versions " + " and ".join(map(str, row["composed_of"]))
            print_rows(rows, ["version", "aliases", "groups", "of", "node", "created", "user", "why"], limit=limit)
        _tell_damaged(damaged)
        return
    found = [RegisteredModel(opened.objects, each) for each in opened.registry.models()]
    rows = [
        {"model": each.name, "versions": len(each.versions()), "aliases": _aliases(each, damaged)} for each in found
    ]
    if as_json:
        print_json(rows)
    elif rows:
        for row in rows:
            row["aliases"] = ", ".join(f"{alias} → {number}" for alias, number in row["aliases"].items()) or None
        print_rows(rows, ["model", "versions", "aliases"], limit=limit)
    else:
        typer.echo(f"no registered models in {opened.url}; umbel register RUN --model NAME makes one")
    _tell_damaged(damaged)


def promote(
    name: ModelArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help='A number, an alias, or "latest".')],
    alias: AliasOption = "champion",
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATE",
            help="better-on-most[:share=0.5], no-group-worse[:by=0.05] (both: metric=…), max-latency-s:S, "
            "max-size-bytes:N; may be repeated.",
        ),
    ] = None,
    per_group: Annotated[
        bool, typer.Option("--per-group", help="Groups that do not pass a gate keep the model they have.")
    ] = False,
    groups: Annotated[list[str] | None, typer.Option("--group", help="Only this group moves; may be repeated.")] = None,
    why: WhyOption = "",
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that models of this store carry.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to a version that passes its gates, and keep the evidence."""
    from umbel.runtime.production.gates import parse_gate
    from umbel.storage.registry.records import check_alias

    check_alias(alias)
    gates = [parse_gate(each) for each in gate or []]
    model = open_for_command(store).registry.model(name)
    before = model.newest(alias)
    record = model.promote(version, alias, gate=gates, per_group=per_group, groups=groups or None, why=why, trust=trust)
    if before is not None and before.number == record.number and not as_json:
        passed = ", and passes its gates" if gates else ""
        typer.echo(f"{name}: {alias} is version {record.version} already{passed}; nothing was moved")
        return
    _print_move(model, record, as_json)


def rollback(
    name: ModelArgument,
    alias: AliasOption = "champion",
    why: WhyOption = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to the version that it pointed to before."""
    model = open_for_command(store).registry.model(name)
    _print_move(model, model.rollback(alias, why=why), as_json)


def history(
    name: ModelArgument,
    alias: Annotated[str | None, typer.Option("--alias", help="Only this alias.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 20,
) -> None:
    """Show where the aliases of a registered model have pointed, newest first: when, by whom, why, by which gates."""
    from umbel.runtime.cli.tables import print_rows, terminal_width
    from umbel.scheduler.errors import StoreCorruptError

    model = open_for_command(store).registry.model(name)
    damaged: list[StoreCorruptError] = []
    records: list[AliasRecord] = []
    for each in model.alias_names() if alias is None else [alias]:
        try:
            records += model.history(each)
        except StoreCorruptError as error:
            damaged.append(error)
    records.sort(key=lambda record: (record.created, record.alias, record.number), reverse=True)
    rows: list[dict[str, Any]] = [asdict(record) for record in records]
    if as_json:
        print_json(rows)
        _tell_damaged(damaged)
        return
    _tell_damaged(damaged if not rows else [])
    if not rows:
        typer.echo(f"{name} has no aliases yet; umbel promote {name} VERSION makes champion")
        return
    is_narrow = terminal_width() < _WIDE
    for row in rows:
        row["created"] = _when(row["created"])
        row["version"] = f"{row['previous'] or '–'} → {row['version']}"
        gates = [gate.partition("(")[0] for gate in row["gates"]] if is_narrow else row["gates"]
        row["gates"] = ", ".join(gates) or None
        row["why"] = row["why"] or None
    print_rows(rows, ["alias", "version", "action", "created", "user", "gates", "why"], limit=limit)
    _tell_damaged(damaged)


def _version_rows(model: RegisteredModel, damaged: list[StoreCorruptError]) -> list[dict[str, Any]]:
    """A row a version; those that can't be read are added to ``damaged``."""
    from umbel.scheduler.errors import StoreCorruptError

    aliases = _aliases(model, damaged)
    rows = []
    for number in reversed(model.versions()):
        kept = ("groups", "by", "run", "node", "composed_of", "metric", "created", "user", "why")
        names = [alias for alias, pointed in aliases.items() if pointed == number]
        try:
            record = model.version(number).record
        except StoreCorruptError as error:
            damaged.append(error)
            continue
        rows.append({"version": number, "aliases": names, **{key: record[key] for key in kept}})
    return rows


def _aliases(model: RegisteredModel, damaged: list[StoreCorruptError]) -> dict[str, int]:
    """The version that each alias points to; records that can't be read are added to ``damaged``."""
    from umbel.scheduler.errors import StoreCorruptError

    found: dict[str, int] = {}
    for alias in model.alias_names():
        try:
            record = model.newest(alias)
        except StoreCorruptError as error:
            damaged.append(error)
            continue
        if record is not None:
            found[alias] = record.version
    return found


def _tell_damaged(damaged: list[StoreCorruptError]) -> None:
    """Name the records that the answer lacks, and end with an error, if there are any."""
    for error in damaged:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
    if damaged:
        raise typer.Exit(1)


def _when(time: str) -> str:
    """A time for people, to the minute."""
    return time[:16].replace("T", " ")


def _print_move(model: RegisteredModel, record: AliasRecord, as_json: bool) -> None:
    if as_json:
        print_json(asdict(record))
        return
    before = "" if record.previous is None else f", was version {record.previous}"
    typer.echo(f"{model.name}: {record.alias} is version {record.version}{before}")
    evidence = model.evidence(record)
    kept = 0 if evidence is None else len({r["group"] for r in evidence.to_pylist() if r["kept"]})
    if kept:
        typer.echo(f"  {kept:,} {'group keeps its' if kept == 1 else 'groups keep their'} model")


def _json(text: str) -> object:
    """What a JSON text says, or the file that it names."""
    from umbel.scheduler.errors import UsageError

    path = Path(text)
    try:
        if len(text) < 1000 and path.is_file():
            text = path.read_text()
        found: object = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            "--inputs is no JSON, and no file that holds it",
            got=text[:80],
            expected="'[[1.0, 2.0]]', or example.json",
            hint=str(error),
        ) from None
    return found
