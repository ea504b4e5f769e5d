"""`umbel.sweep`: one function over groups × trials, checked as far as it can be before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from numbers import Integral
from typing import TYPE_CHECKING, Any, cast

from umbel.runtime.driver.programs import InputKind
from umbel.runtime.fused.batches import Fusion
from umbel.runtime.graph.nodes import Argument, Elements, Node, Sweep
from umbel.runtime.graph.sequences import as_sequence
from umbel.runtime.graph.task import Task, default_name, signature_of
from umbel.runtime.search.objectives import to_objectives
from umbel.runtime.search.pruning import to_pruning
from umbel.runtime.search.searches import adaptive_search, is_adaptive, placeholder_space
from umbel.runtime.search.shared_budget import check_budget, check_one_metric, check_transfer
from umbel.runtime.search.spaces import to_space
from umbel.runtime.search.transfer_runs import read_lenders
from umbel.scheduler.errors import GraphError, SpaceError, UsageError
from umbel.scheduler.search.adaptive import AdaptiveSearch
from umbel.scheduler.search.sampling import Search, TrialSource, rounds_of_grid, validate_search
from umbel.scheduler.search.space import Space
from umbel.scheduler.words import counted
from umbel.storage.layout import check_name
from umbel.storage.redaction import is_secret_name
from umbel.storage.runs.trial_rows import OUT_OF_ORDER

if TYPE_CHECKING:
    from umbel.storage.runs.run import Run

__all__ = ["groups_of", "sweep"]

KEEPS = ("best", "all", "none")
#: Columns of the trials table that group keys can't take.
RESERVED = frozenset(
    {
        *("run", "sweep", "trial", "status", "error", "attempt", "seed", "started", "seconds", "host", "worker"),
        *(
            "params",
            "distributions",
            "code",
            "data",
            "key",
            "model",
            "model_at",
            "model_payload",
            "reused_from",
            "steps",
            "rungs",
            OUT_OF_ORDER,
            "borrowed_from",
        ),
    }
)
#: How the names of its columns of configs and metrics begin.
RESERVED_PREFIXES = ("config_", "metric_")


def sweep(
    fn: Callable[..., Any] | Task[..., Any],
    *,
    space: Mapping[str, Any] | Callable[..., Any] | None = None,
    metric: str | Sequence[str] | None = None,
    mode: str | Sequence[str] = "min",
    over: Mapping[str, Sequence[Any] | Node | Elements] | None = None,
    data: Any = None,
    trials: int | None = None,
    search: Any = "random",
    seed: int = 0,
    keep: str = "best",
    prune: object = None,
    prune_across: bool = False,
    transfer: bool = False,
    transfer_from: Run | Sequence[Run] | None = None,
    budget: int | None = None,
    floor: int | None = None,
    name: str | None = None,
) -> Sweep:
    """Try many configs of a function in each of many groups.

    Args:
        fn: ``fn(config)``, or ``fn(config, data)`` if ``data`` is given; returns a number, a dict of numbers by metric
            name, or `umbel.Result`. A task (`umbel.task`) brings its resources, retries and time limit along. A fused
            function (`umbel.fused`) runs many trials at once.
        space: for each name a ``ray.tune`` domain, an Optuna distribution, a list of choices, a constant, or a dict of
            these; or a function ``fn(trial: optuna.Trial)`` that suggests what it needs, and may return a dict of
            further values ("define by run"). Required.
        metric: the name of the metric that trials are compared by, or several names: then the best of a group are its
            Pareto set, all trials that no other of the group dominates. Required.
        mode: "min" if less is better, "max" if more is; of several metrics one for each, or one for all.
        over: the groups: values by key; several keys give every combination, the last changing fastest. Group keys
            also stand in the config. A node stands for the list that it returns: then the groups are known once it has
            run. None: one group.
        data: one element a group (a fan-out, the ``elements()`` of a node, or a sequence, as long as there are groups),
            or a single value or node for all.
        trials: how many a group; with ``search="grid"`` it may be left out and is the size of the grid.
        search: "random", "grid" or "tune" (as Ray Tune counts: each point of the ``tune.grid_search`` dimensions
            ``trials`` times, with the others drawn anew each time); or, building upon the trials before in the same
            group, "tpe", "gp", "cmaes" (one metric only), "nsga2", a sampler of Optuna's (each group gets a copy), or a
            function ``fn(group) -> sampler``. A function whose parameter is called ``trial`` defines the space, and is
            searched by TPE.
        seed: from it, the sweep's name, the group and the trial's number follow config and seed of every trial.
        keep: whose models are stored if the function returns `umbel.Result` with one: "best" (those that beat what
            their worker has seen of the group; with several metrics, those that nothing of it dominates), "all" or
            "none".
        prune: stops trials that are not worth going on with, at `umbel.report`: "asha", "median", "hyperband", one of
            `umbel.Asha`, `umbel.Median`, `umbel.Hyperband`, or any pruner of ``optuna.pruners``. A trial that was
            stopped is the best of its group only if none ran to its end. None: nothing is pruned.
        prune_across: compare trials of all groups, by their ranks in their groups.
        transfer: let groups learn from one another: a group's first trial, and from its seventh on two of three, are
            configs that did well in others or that these make promising, until there are 64; its own search chooses the
            others, and sees all. Choosing takes some milliseconds, so it is for trials that take longer. The
            column ``borrowed_from`` says where each is from. Run by several workers, results depend on which groups
            were done first; in one process they don't; a trial can be replayed in any case.
        transfer_from: runs of a store whose groups lend too (`Store.run`): their sweep of the same name, or their only
            one, over the same space. Implies ``transfer``.
        budget: how many trials all groups get together. Each gets ``floor`` first; the rest go, in instalments, where
            most is expected of them (`umbel.scheduler.search.allocation`), and the sweep is done when they
            are spent. ``trials`` is then the most that one group may get, 1000 if left out. Running again with a higher
            budget goes on. (The ``budget`` of `umbel.run` is something else: a limit, at which a run stops before all
            is done.)
        floor: how many trials of the budget each group gets first; 10 if left out.
        name: its name in the run; the function's name otherwise.

    Raises:
        SpaceError: the space, or the search over it, is wrong.
        UsageError: another argument is wrong.
        GraphError: the data don't line up with the groups.
    """
    if name is not None:
        check_name("sweep", name)
    task = fn if isinstance(fn, Task) else Task(fn, name=name or default_name(fn))
    name = name or task.name
    objectives = to_objectives(metric, mode, name)
    pruning = to_pruning(prune, prune_across, objectives)
    _check_one_of("keep", keep, KEEPS, 'keep="best" stores the models of trials that beat those before them')
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise UsageError(
            "the sweep's seed is not a whole number",
            got=f"seed={seed!r}",
            expected="a whole number",
            hint="leave it out for 0",
        )
    axes = _axes(over)
    groups = None if any(isinstance(values, Node) for values in axes.values()) else groups_of(axes)
    transfer = check_transfer(transfer, search, groups, transfer_from)
    if transfer or budget is not None:
        check_one_metric(objectives)
    if budget is not None or floor is not None:
        trials, floor = check_budget(budget, floor, trials, None if groups is None else len(groups), search)
    adaptive: AdaptiveSearch | None = None
    if transfer or is_adaptive(search, space):
        if task.fusion is not None:
            raise UsageError(
                f"the function of sweep {name!r} is fused, so its trials run side by side, and this search builds each "
                "upon those before",
                got=f"search={search!r}{', transfer' if transfer else ''}"
                if not callable(space)
                else "a function that defines the space",
                expected='search="random", "grid" or "tune"',
                hint="or a function of one trial, without @umbel.fused",
            )
        defined = placeholder_space() if space is None else space if callable(space) else to_space(space)
        _check_names(defined if isinstance(defined, Space) else placeholder_space(), list(axes))
        known: dict[str, Any] = {"seed": int(seed), "sweep": name, "objectives": objectives, "transfer": transfer}
        adaptive = adaptive_search(search, defined, trials=trials, group=groups[0] if groups else None, **known)
        source = adaptive.source
    else:
        converted = to_space(space)
        _check_names(converted, list(axes))
        if task.fusion is not None:
            _check_by(task.fusion, converted, list(axes), name)
        count = validate_search(converted, search, trials)
        if search == "tune":
            count = validate_search(converted, search, rounds_of_grid(converted, count))
        source = TrialSource(converted, cast(Search, search), int(seed), name, count)  # validate_search has checked it
    lenders, lent = read_lenders(transfer_from, name, adaptive, objectives[0]) if adaptive is not None else ((), ())
    arguments = () if data is None else (_data_argument(data, None if groups is None else len(groups), over),)
    _check_signature(task, bool(arguments))
    arguments += tuple(
        Argument(key, values, InputKind.AXIS) for key, values in axes.items() if isinstance(values, Node)
    )
    return Sweep(
        task,
        name=name,
        source=source,
        axes=axes,
        groups=groups,
        arguments=arguments,
        objectives=objectives,
        keep=keep,
        search=adaptive,
        pruning=pruning,
        lenders=lenders,
        lent=lent,
        budget=budget,
        floor=floor or 1,
    )


def _check_one_of(what: str, value: object, known: tuple[str, ...], hint: str) -> None:
    if value not in known:
        raise UsageError(f"unknown {what}", got=f"{what}={value!r}", expected=" or ".join(map(repr, known)), hint=hint)


def _axes(over: Mapping[str, Any] | None) -> dict[str, Sequence[object] | Node]:
    """The values of each group key, or the node that brings them."""
    if over is None:
        return {}
    if not isinstance(over, Mapping) or not over:
        raise UsageError(
            "over has no groups",
            got=over,
            expected='values by key, such as {"country": ["DEU", "FRA"]}',
            hint="leave it out for a sweep without groups",
        )
    axes: dict[str, Sequence[object] | Node] = {}
    for key, values in over.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise UsageError(
                "a group key is not a plain name",
                got=repr(key),
                expected="letters, digits and underscores, not starting with a digit",
                hint="rename it: it becomes a column of the trials table",
            )
        node = values.source if isinstance(values, Elements) else values
        if not isinstance(node, Node):
            axes[key] = _axis(key, values)
        elif node.fans_out:
            raise UsageError(
                f"the groups of {key!r} are a fan-out",
                got=node,
                expected="a list of strings, numbers or booleans, or a node that returns one",
                hint="let a task that gets the whole fan-out return the groups",
            )
        else:
            axes[key] = node
    return axes


def groups_of(axes: Mapping[str, object]) -> list[dict[str, object]]:
    """Every combination of the group keys' values, the last key changing fastest; without keys one group.

    Raises:
        UsageError: the values of a key are none, not plain, of several types, or not distinct.
    """
    values = [_axis(key, values) for key, values in axes.items()]
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*values)]


def _axis(key: str, values: object) -> list[object]:
    items = as_sequence(values)
    if items is None or len(items) == 0:
        raise UsageError(
            f"the groups of {key!r} are empty" if items is not None else f"the groups of {key!r} are not a list",
            got=repr(values),
            expected="at least one value, in a list",
            hint=f'for example over={{"{key}": ["a", "b"]}}; leave over= out for a sweep without groups',
        )
    return _plain_values(key, items)


def _plain_values(key: str, items: Sequence[object]) -> list[object]:
    plain: list[object] = []
    for item in items:
        value = item.item() if type(item).__module__ == "numpy" and hasattr(item, "item") else item
        if not _fits_column(value):
            raise UsageError(
                f"a group of {key!r} is not a plain value",
                got=repr(value),
                expected="strings, booleans, finite numbers, or whole numbers of at most 64 bits",
                hint="name the groups by strings, and give what belongs to each as data=",
            )
        plain.append(value)
    kinds = {type(value) for value in plain}
    if len(kinds) > 1 and kinds != {int, float}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(
            f"the groups of {key!r} are of different types",
            got=names,
            expected="one type, so that they make one column",
            hint="convert them, with [str(value) for value in values] for example",
        )
    seen: set[object] = set()
    repeated = [value for value in plain if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
    if repeated:
        raise UsageError(
            f"the groups of {key!r} hold duplicates",
            got=", ".join(map(repr, repeated[:5])),
            expected="each value once",
            hint="remove them, with list(dict.fromkeys(values)) for example",
        )
    return plain


def _fits_column(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _check_names(space: Space, keys: Sequence[str]) -> None:
    first_keys = {path[0] for path, _ in space.dimensions}
    seen: dict[str, str] = {}
    for key in keys:
        folded = key.lower()  # warehouses don't tell columns apart by case
        if folded in RESERVED or folded.startswith(RESERVED_PREFIXES):
            raise UsageError(
                f"{key!r} can't be a group key: it is the name of another column of the trials table",
                got=f"over={{{key!r}: …}}",
                expected=f"another name than {', '.join(sorted(RESERVED))}, {', '.join(RESERVED_PREFIXES)}…",
                hint="rename it",
            )
        if is_secret_name(key):
            raise UsageError(
                f"the group key {key!r} looks like the name of a credential, and groups stand in every row",
                got=f"over={{{key!r}: …}}",
                expected="groups that may be written down",
                hint="name the groups by something else, and read the credential inside the function",
            )
        if folded in seen:
            raise UsageError(
                "two group keys differ only in case",
                got=f"{seen[folded]!r} and {key!r}",
                expected="names that differ whatever their case, since each is a column",
                hint="rename one of them",
            )
        seen[folded] = key
        if key in first_keys:
            raise SpaceError(
                f"{key!r} is both a group key and a dimension of the space",
                got=repr(key),
                expected="group keys and dimensions of different names, since both stand in the config",
                hint="rename one of them",
            )


def _check_by(fusion: Fusion, space: Space, keys: Sequence[str], sweep: str) -> None:
    known = [*dict.fromkeys(path[0] for path, _ in space.dimensions), *keys]
    unknown = [name for name in fusion.by if name not in known]
    if unknown:
        raise UsageError(
            f"batches of sweep {sweep!r} are to be formed by what is not in the configs",
            got=f"by={unknown[0]!r}",
            expected=f"names of the space or group keys: {', '.join(known) or 'there are none'}",
        )


def _data_argument(data: object, groups: int | None, over: Mapping[str, Any] | None) -> Argument:
    if isinstance(data, Elements):
        return Argument(None, data.source, InputKind.ITEM)
    length: int | None
    if isinstance(data, Node):
        if not data.fans_out:
            return Argument(None, data, InputKind.ONE)
        node = data.best() if isinstance(data, Sweep) else data
        source: object = node
        length = node.size
    elif isinstance(data, (list, tuple)):
        source, length = data, len(data)
    else:
        return Argument(None, data, InputKind.ONE)
    if groups is not None and length is not None and length != groups:
        keys = " × ".join(over) if over else "no group keys"
        raise GraphError(
            "the data don't line up with the groups",
            got=f"{length} elements of data, {counted(groups, 'group')} ({keys})",
            expected="one element of data a group, in the order of the groups",
            hint="map the loading task over the same list that is given to over="
            if over
            else "without over= there is one group: if its data are a list, give data=[that_list]",
        )
    return Argument(None, source, InputKind.EACH)


def _check_signature(task: Task[..., Any], with_data: bool) -> None:
    signature = signature_of(task.fn)
    if signature is None:
        return
    try:
        signature.bind(*([{}, None] if with_data else [{}]))
    except TypeError as error:
        first = "config" if task.fusion is None else "configs"
        form = f"fn({first}, data)" if with_data else f"fn({first})"
        raise GraphError(
            f"the sweep's function {task.name!r} can't be called as {form}: {error}",
            got=f"{task.name}{signature}",
            expected=f"a function of the form {form}",
            hint="let the function take the group's data as its second argument, or leave out data="
            if with_data
            else "give the sweep data=… if the function needs data",
        ) from None
