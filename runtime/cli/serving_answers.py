"""The commands that ask what became of a model that is served: ab, drift.

Like all commands they import what they need when they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from umbel.runtime.cli.options import JsonOption, StoreOption, open_for_command, print_json

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

__all__ = ["DRIFT", "register_commands"]

#: Status of `umbel drift` if there is drift: none that an error, or another command, has.
DRIFT = 3

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name.")]
SinceOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Leave out what was answered before: 2026-03-01, 2026-03-01T12:00.")
]


def register_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ab")(ab)
    app.command("drift")(drift)


def ab(
    model: ModelArgument,
    champion: Annotated[str, typer.Option(help="An alias, or a version's number.")] = "champion",
    challenger: Annotated[str, typer.Option(help="Likewise.")] = "challenger",
    loss: Annotated[
        str, typer.Option(help="squared, absolute, percentage, wrong, log, or pinball:QUANTILE; smaller is better.")
    ] = "squared",
    alpha: Annotated[float, typer.Option(help="Chance of a wrong decision, however often one looks.")] = 0.05,
    least: Annotated[int, typer.Option("--min", metavar="N", help="Decide nothing before so many of each arm.")] = 200,
    gain: Annotated[float, typer.Option(help="Promote only if the mean loss is lower by more than this.")] = 0.0,
    design: Annotated[str, typer.Option(help="paired (shadow), unpaired (split), or auto.")] = "auto",
    unit: Annotated[str, typer.Option(help="request; key: a caller's key counts once; or auto.")] = "auto",
    split: Annotated[
        str | None,
        typer.Option(metavar="ALIAS=SHARE,…", help="The shares of the arms, if the log does not have them."),
    ] = None,
    since: SinceOption = None,
    per_group: Annotated[
        bool, typer.Option("--per-group", help="Show each group; with --apply: promote only those that are decided.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="If the decision is to promote, do so.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="With --apply: load models that carry code.")] = False,
    page: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page with a picture; .svg: the picture.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which of two versions that are served is better? Ask as often as you like: promote, keep or not yet."""
    from pathlib import Path

    from umbel.runtime.production.ab import ab as compare
    from umbel.runtime.production.ab_promotion import promote
    from umbel.runtime.production.served import registered_model

    opened = open_for_command(store)
    found = compare(
        model,
        store=opened,
        champion=champion,
        challenger=challenger,
        loss=loss,
        alpha=alpha,
        least=least,
        gain=gain,
        design=design,
        unit=unit,
        shares=None if split is None else _shares(split),
        since=_time(since),
    )
    if page is not None:
        text = found.svg() if page.endswith(".svg") else f"<!doctype html><meta charset='utf-8'>{found._repr_html_()}"
        Path(page).write_text(text, encoding="utf-8")
    applied = None
    try:
        if apply:
            record = promote(found, registered_model(model, opened), per_group=per_group, trust=trust)
            applied = {"alias": record.alias, "version": record.version}
    finally:  # the answer is shown, too, if it does not allow a promotion
        if as_json:
            print_json({**found.as_dict(), "applied": applied})
        else:
            typer.echo(found.text(per_group=per_group))
    if applied is not None and not as_json:
        typer.echo(f"promoted: {applied['alias']!r} of {model!r} points to version {applied['version']}")


def drift(
    model: ModelArgument,
    version: Annotated[str, typer.Option(help="A version's number, or an alias.")] = "champion",
    against: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Training data (Parquet, CSV, Arrow), instead of the version's profile."),
    ] = None,
    outputs: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --against: the column that outputs are compared with.")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="With --against: keep it as the version's profile.")] = False,
    since: SinceOption = None,
    psi: Annotated[float, typer.Option(help="Population stability index from which a field has drifted.")] = 0.2,
    ks: Annotated[float, typer.Option(help="Kolmogorov–Smirnov distance from which it has, if chance can't be.")] = 0.1,
    least: Annotated[int, typer.Option("--min", metavar="N", help="Judge no field with fewer values.")] = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Is what is served still what the model was trained on? Status 0: no drift. 3: drift."""
    from umbel.runtime.production.drift import drift as compare
    from umbel.runtime.production.drift import profile
    from umbel.scheduler.errors import UsageError

    opened = open_for_command(store)
    if against is None and (save or outputs is not None):
        raise UsageError("--save and --outputs need training data", hint="--against FILE.parquet")
    before = None if against is None else profile(_read_table(against), outputs=outputs)
    if save and before is not None:
        before.save(model, version, store=opened)
    found = compare(
        model, store=opened, version=version, against=before, since=_time(since), psi=psi, ks=ks, least=least
    )
    if as_json:
        print_json(found.as_dict())
    else:
        typer.echo(found.text())
    if found.drifted:
        raise typer.Exit(DRIFT)


def _read_table(path: str) -> pa.Table:
    """A file of rows.

    Raises:
        UsageError: it can't be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    from umbel.scheduler.errors import UsageError

    ending = path.rpartition(".")[2].lower()
    try:
        return ds.dataset(
            path, format={"csv": "csv", "arrow": "ipc", "feather": "feather"}.get(ending, "parquet")
        ).to_table()
    except FileNotFoundError:
        raise UsageError(
            "there is no such file of training data",
            got=path,
            expected="a file in Parquet, CSV or Arrow",
            hint="without --against, the version's own profile is taken",
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(
            "the training data can't be read", got=f"{path}: {error}", expected="Parquet, CSV or Arrow"
        ) from None


def _shares(text: str) -> dict[str, float]:
    """``champion=90,challenger=10`` as numbers."""
    from umbel.scheduler.errors import UsageError

    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.partition("=")
        try:
            found[name.strip()] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            hint = f"write {part.replace(':', '=')}" if ":" in part else "an alias, =, and its share in percent"
            raise UsageError("this is no split", got=text, expected="champion=90,challenger=10, say", hint=hint)
    return found


def _time(text: str | None) -> datetime | None:
    """A time as people write it; without a zone it is UTC."""
    from datetime import UTC, datetime

    from umbel.scheduler.errors import UsageError

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError("this is no time", got=text, expected="2026-03-01, or 2026-03-01T12:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
