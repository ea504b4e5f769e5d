"""How does Serve's own configuration, as of a RayService or `serve deploy`, name what `umbel serve` serves?

`BUILDER` is the ``import_path``; its ``args`` are the options of `umbel serve`. Serve calls `build` on the cluster,
where the store and the token's variable are. It must not know manifests, and imports Ray only when it builds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import UsageError

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["BUILDER", "build", "read_arguments"]

#: The ``import_path`` of an application in Serve's configuration.
BUILDER = "umbel.cluster.serving.app_builder:build"


def build(args: dict[str, Any]) -> Application:
    """The Serve application of a registered model.

    Args:
        args: ``model``, and as `umbel serve` has them: ``store``, ``alias``, ``split``, ``shadow``, ``log``,
            ``log_inputs``, ``sticky_per_group``, ``salt``, ``token_env``, ``token_file``, ``no_token``, ``trust``,
            ``replicas``, ``cpus``, ``gpus``, ``cached_groups``, ``max_ongoing``, ``max_queued``, ``max_body_bytes``,
            ``max_batch``, ``poll_s``, ``load_timeout_s``, ``access_log``; and ``grpc``: whether it answers gRPC, too.
            Numbers and truth values may be texts.

    Raises:
        UsageError: an argument is unknown, missing or can't be meant.
        NotFoundError: there is no such model or alias.
        UntrustedError: its models carry code, and the store is not trusted.
        StoreError: the store can't be read.
    """
    from umbel.cluster.serving.grpc_calls import GrpcCallers
    from umbel.cluster.serving.replica import application
    from umbel.cluster.serving.serve import checked_settings, open_served
    from umbel.cluster.serving.settings import make_settings, read_token
    from umbel.storage.registry.trust import is_trusted

    given = read_arguments(args)
    store = open_served(given.pop("store", None), None)
    options = {name: given.pop(name, default) for name, default in _DEPLOYED.items()}
    callers = GrpcCallers.ALL if given.pop("grpc", False) else GrpcCallers.NOBODY
    token = read_token(given.pop("token_file", None), given.pop("token_env", None))
    trust = given.pop("trust", False) or is_trusted(store.objects)
    settings = checked_settings(store, make_settings(**given, token=token, trust=trust))
    return application(store.objects, settings, **options, grpc_callers=callers)


def read_arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, each with the type that it is to have.

    Raises:
        UsageError: one is unknown or of the wrong type, ``model`` is missing, or neither a token nor none is asked for.
    """
    for name in args:
        if name not in _READ:
            near = get_close_matches(name, _READ)
            hint = f"did you mean {' or '.join(near)}?" if near else None
            raise UsageError("unknown argument of a served model", got=name, expected=", ".join(_READ), hint=hint)
    if not args.get("model"):
        raise UsageError("a served model needs a name", expected='args = { model = "gdp" }')
    found = {name: _READ[name](name, value) for name, value in args.items()}
    guarded = "token_env" in found or "token_file" in found
    if guarded == found.pop("no_token", False):
        raise UsageError(
            "a server asks for a token, or for none",
            got="both" if guarded else "neither: anybody who reaches the cluster could ask",
            expected='token_env = "VARIABLE" (or token_file)',
            hint='or no_token = "true", where something else keeps others out',
        )
    return found


def _text(name: str, value: Any) -> str:
    return str(value)


def _texts(name: str, value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, list) else str(value)


def _truth(name: str, value: Any) -> bool:
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise UsageError(f"{name} is neither true nor false", got=repr(value))
    return found


def _whole(name: str, value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UsageError(f"{name} is no whole number", got=repr(value)) from None


def _number(name: str, value: Any) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise UsageError(f"{name} is no number", got=repr(value)) from None


#: What the deployment, and not what is served, is told; with its defaults.
_DEPLOYED = {
    "replicas": 1,
    "cpus": 1.0,
    "gpus": 0.0,
    "max_ongoing": 100,
    "max_queued": 200,
    "access_log": False,
}
_READ: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("model", "store", "alias"), _text),
    "split": _texts,
    **dict.fromkeys(("shadow", "salt", "token_env", "token_file"), _text),
    **dict.fromkeys(("no_token", "trust", "log_inputs", "sticky_per_group", "access_log", "grpc"), _truth),
    **dict.fromkeys(("replicas", "cached_groups", "max_ongoing", "max_queued", "max_body_bytes", "max_batch"), _whole),
    **dict.fromkeys(("log", "cpus", "gpus", "poll_s", "load_timeout_s"), _number),
}
