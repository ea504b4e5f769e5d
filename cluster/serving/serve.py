"""`umbel.serve`: start a server of a registered model on Ray Serve, and hold it.

What can be wrong is found here, before anything is started: the model, its aliases, trust, the port. It must not know
how requests are answered.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any
from uuid import uuid4

from umbel.cluster.serving.listening import Listening, connect
from umbel.cluster.serving.settings import ServeSettings, make_settings
from umbel.runtime.executors import ray_cluster
from umbel.runtime.graph.task import Resources
from umbel.scheduler.errors import ExecutorError, UmbelError, UntrustedError, UsageError
from umbel.storage.registry.model_rows import FORMAT, GROUP
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.trust import is_trusted
from umbel.storage.store import Store, open_store

__all__ = ["Serving", "checked_settings", "open_served", "serve"]

#: Seconds that a server gets to answer what is under way and to write its log.
STOP_S = 30.0


class Serving:
    """A server that runs. Leaving it as a context, or `stop`, ends it."""

    def __init__(self, name: str, listening: Listening, prefix: str, handle: Any, settings: ServeSettings) -> None:
        #: The name of the Serve application.
        self.name = name
        #: Where to ask it on this machine: ``http://127.0.0.1:8000``.
        self.url = listening.url + prefix.rstrip("/")
        #: Where to ask it by gRPC on this machine: ``127.0.0.1:9000``; None: it does not answer that.
        self.grpc = listening.grpc
        #: Where it listens: "127.0.0.1" for this machine only, "0.0.0.0" for all.
        self.host = listening.host
        self.settings = settings
        self._handle = handle
        self._owns_ray = listening.owns_ray
        self._stopped = False

    def __repr__(self) -> str:
        return f"<{self.settings.model} served at {self.url}>"

    def predict(
        self,
        group: str | Mapping[str, Any],
        inputs: Any,
        *,
        key: str | None = None,
        request_id: str | None = None,
    ) -> Any:
        """What the model of a group answers, without HTTP: for callers in the cluster.

        Args:
            group: its name, or its values by key, as ``{"store": "north"}``.
            inputs: plain data: numbers, texts, lists and dicts.
            key: names the caller: calls with one key meet the same version. 500 characters at most.
            request_id: names the call in the log; None: one is made. 200 printable characters at most.

        Returns:
            ``{"outputs": …, "version": …, "alias": …, "request_id": …}``.

        Raises:
            NotFoundError: there is no such group; near names are given.
            UsageError: the inputs are not what the model takes, or a name, key or id can't be meant.
            UmbelError: the model failed, or can't be loaded now.
            ExecutorError: too many requests wait, or the server is gone.
        """
        named = dict(group) if isinstance(group, Mapping) else group
        return self._call("predict", named, inputs, request_id or uuid4().hex, key)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether a replica can predict, and what is wrong with it: what ``GET /readyz`` says."""
        ready, told = self._call("readiness")
        return bool(ready), dict(told)

    def _call(self, method: str, *args: Any) -> Any:
        from ray.exceptions import RayTaskError

        try:
            return getattr(self._handle, method).remote(*args).result(timeout_s=60.0)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UmbelError) else _serve_failed(error)) from None
        except UmbelError:
            raise
        except Exception as error:
            raise _serve_failed(error) from error

    def stop(self) -> None:
        """End the server: requests that are under way are answered, and what is to be logged is written.

        A Ray that was started for it ends with it; on a cluster that was there, only this application ends.
        """
        if self._stopped:
            return
        self._stopped = True
        import ray
        from ray import serve as ray_serve

        # Ray never answers if its own processes are gone, as after a SIGTERM to the whole process group.
        ending = threading.Thread(target=ray_serve.delete, args=(self.name,), name="umbel-stop", daemon=True)
        ending.start()
        try:
            end = time.monotonic() + STOP_S
            while ending.is_alive() and time.monotonic() < end and not (self._owns_ray and ray_cluster.has_ended()):
                ending.join(0.25)
            if ending.is_alive():
                why = f"did not end within {STOP_S:g} s"
                if self._owns_ray and ray_cluster.has_ended():
                    why = "has ended at once, as Ray did: a signal to its whole process group, maybe"
                text = f"the server {why}; the last seconds of its log may be lost"
                warnings.warn(text, UserWarning, stacklevel=2)
        finally:
            if self._owns_ray:
                ray.shutdown()

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    model: str,
    *,
    store: str | Store | None = None,
    storage_options: Mapping[str, Any] | None = None,
    alias: str = "champion",
    split: str | Sequence[str] | Mapping[str, float] | None = None,
    shadow: str | None = None,
    log: float | None = None,
    log_inputs: bool = False,
    sticky_per_group: bool = False,
    salt: str | None = None,
    token: str | None = None,
    no_token: bool = False,
    trust: bool = False,
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    prefix: str = "/",
    name: str | None = None,
    replicas: int = 1,
    cpus: float | None = None,
    gpus: float = 0.0,
    cached_groups: int = 64,
    max_ongoing: int = 100,
    max_queued: int = 200,
    max_body_bytes: int = 8 * 2**20,
    max_batch: int = 1000,
    poll_s: float = 1.0,
    load_timeout_s: float = 30.0,
    access_log: bool = False,
    address: str | None = None,
) -> Serving:
    """Serve a registered model by HTTP, and by gRPC if it is asked for, with Ray Serve.

    Returns when it answers. Moving an alias reaches it within seconds; nothing is restarted.

    On a cluster where others hold what the replicas need, it waits, and a UserWarning says for what.

    Args:
        model: the name of a registered model.
        store: the store or its URL; None: `$UMBEL_STORE`, else ``./umbel-store``.
        storage_options: what fsspec's file system of the URL's protocol takes.
        alias: whose version answers.
        split: shares of the callers by alias, in percent: ``"champion=90,challenger=10"``, or a dict; for one group
            ``"DEU:champion=50,challenger=50"``; several in a list.
        shadow: an alias that is asked, too, after the answer is given, and recorded beside it.
        log: the share of the requests that is logged to the store, 0 to 1. None: all, if there is a split or a
            shadow; else none.
        log_inputs: log inputs, not only their digest.
        sticky_per_group: a caller may meet another version in another group.
        salt: assigns callers to versions; another one shuffles them.
        token: ask for this bearer token.
        no_token: ask for none, even if other machines reach the server.
        trust: load models that carry code, even if the store is not listed as trusted.
        host: where to listen: "127.0.0.1" for this machine only, "0.0.0.0" for all. None: this machine only, or where
            the cluster's Serve listens already.
        port: where to listen; 0 takes a free one. None: 8000, or where the cluster's Serve listens already.
        grpc_port: answer gRPC, too, there; 0 takes a free port, or where the cluster's Serve listens. None: no gRPC.
        prefix: the path under which the interface lies, on a cluster that serves several models.
        name: of the Serve application; None: ``umbel-<model>``. Two servers of one model on a cluster need two.
        replicas: processes that answer.
        cpus: that each holds; None: one, or on a Ray that is started for it what there is.
        gpus: that each holds.
        cached_groups: models that a replica keeps in memory.
        max_ongoing: requests that a replica works on at once.
        max_queued: requests that may wait; more are turned away with 503 and Retry-After.
        max_body_bytes: of a request.
        max_batch: predictions that one request may ask for.
        poll_s: seconds between two looks at the aliases.
        load_timeout_s: how long a request waits for a model that must be loaded; and a version that is tried is
            refused if none of its models has been loaded and has answered for so long.
        access_log: a line a request in Serve's log.
        address: of a Ray cluster; None: that of this process, or $RAY_ADDRESS; else one is started here.

    Raises:
        NotFoundError: there is no such model or alias.
        UntrustedError: its models carry code, and the store is not trusted.
        UsageError: an argument can't be meant; the port or the name is taken; anybody could ask.
        StoreError: the store can't be read.
        ExecutorError: Ray can't be reached or started; no node could hold a replica; no version can be served.
    """
    if replicas < 1 or max_ongoing < 1 or max_queued < 0:
        raise UsageError(
            "replicas, max_ongoing and max_queued are counts", got=f"{replicas}, {max_ongoing}, {max_queued}"
        )
    if not prefix.startswith("/") or "{" in prefix or (prefix != "/" and prefix.endswith("/")):
        raise UsageError("this can't be the prefix of a path", got=prefix, expected="/ or /models, say")
    opened = open_served(store, storage_options)
    settings = make_settings(
        model,
        alias=alias,
        split=split,
        shadow=shadow,
        log=log,
        log_inputs=log_inputs,
        cached_groups=cached_groups,
        trust=trust or is_trusted(opened.objects),
        token=token,
        salt=salt,
        sticky_per_group=sticky_per_group,
        max_body_bytes=max_body_bytes,
        max_batch=max_batch,
        poll_s=poll_s,
        load_timeout_s=load_timeout_s,
    )
    if token is not None and no_token:
        raise UsageError("a server asks for a token, or for none", got="both", expected="token= or no_token=")
    settings = checked_settings(opened, settings)
    for idle in settings.splits.default.idle:
        warnings.warn(f"{idle} answers nobody: its share is 0 (a shadow is asked, too)", UserWarning, stacklevel=2)
    is_guarded = no_token or token is not None
    listening = connect(
        address, host, port, is_guarded=is_guarded, grpc_port=grpc_port, largest_bytes=settings.max_body_bytes
    )
    application_name = name or f"umbel-{model}"
    import ray

    from umbel.cluster.serving.deploying import check_room, deploy
    from umbel.cluster.serving.replica import application

    try:
        cpus = cpus if cpus is not None else _share(replicas) if listening.owns_ray else 1.0
        resources = Resources(cpus, gpus)
        if listening.owns_ray:
            check_room(resources, replicas)
        _check_name(application_name)
        built = application(
            opened.objects,
            settings,
            replicas=replicas,
            cpus=cpus,
            gpus=gpus,
            max_ongoing=max_ongoing,
            max_queued=max_queued,
            access_log=access_log,
            grpc_callers=listening.grpc_callers,
        )
        handle = deploy(built, application_name, prefix, resources, replicas)
        serving = Serving(application_name, listening, prefix, handle, settings)
        try:
            _check_ready(serving)
        except BaseException:
            serving.stop()
            raise
    except BaseException:
        if listening.owns_ray:
            ray.shutdown()
        raise
    return serving


def open_served(store: str | Store | None, storage_options: Mapping[str, Any] | None) -> Store:
    """The store that is served from; None: the default one.

    Raises:
        UsageError: only this process sees it.
        StoreError: it can't be opened.
    """
    from umbel.runtime.driver.run import default_store

    opened = store if isinstance(store, Store) else open_store(store or default_store(), storage_options)
    if opened.objects.is_process_local:
        raise UsageError("only this process sees this store", got=opened.url, expected="one that replicas see, too")
    return opened


def checked_settings(store: Store, settings: ServeSettings) -> ServeSettings:
    """The settings, with groups by their canonical names, if nothing would keep the replicas from starting.

    Raises:
        NotFoundError: there is no such model, alias or group.
        UntrustedError: its models carry code, and the store is not trusted.
    """
    registered = store.registry.model(settings.model)
    found = {alias: registered.version(registered.resolve(alias).version) for alias in settings.aliases}
    version = found[settings.alias]
    splits = {str(version.row(group)[GROUP]): split for group, split in settings.splits.groups.items()}
    if len(splits) < len(settings.splits.groups):
        raise UsageError("two splits are given for the same group", got=", ".join(settings.splits.groups))
    if not settings.trust:
        for each in found.values():
            _check_trusted(each)
    return replace(settings, splits=replace(settings.splits, groups=splits))


def _check_trusted(version: ModelVersion) -> None:
    """Load a model of each format that may carry code: those of one version are alike, mostly."""
    tried = set()
    for group, form in zip(*(version.table()[name].to_pylist() for name in (GROUP, FORMAT)), strict=True):
        if form in tried or form not in ("pickle", "skops", "safetensors"):
            continue
        tried.add(form)
        try:
            version.load(group)
        except UntrustedError:  # says what to do
            raise
        except UmbelError:  # replicas may have what is missing here; they try all models
            continue


def _check_name(name: str) -> None:
    """Serve would put one application of this name into the other's place, without a word. One that ends may end."""
    from ray import serve as ray_serve

    end = time.monotonic() + STOP_S
    running = ray_serve.status().applications.get(name)
    if running is not None and running.status.value == "DELETING":
        warnings.warn(f"the server {name} that was here is ending: this one starts after it", UserWarning, stacklevel=3)
        while running is not None and running.status.value == "DELETING" and time.monotonic() < end:
            time.sleep(0.2)
            running = ray_serve.status().applications.get(name)
    if running is not None:
        raise UsageError(
            "a server of this name runs on this cluster already",
            got=f"{name}, {running.status.value.lower()}",
            expected="another name (--name; name=), and another --prefix",
            hint=f"python -c 'import ray.serve; ray.serve.delete(\"{name}\")' ends the one that runs",
        )


def _check_ready(serving: Serving) -> None:
    ready, told = serving.readiness()
    if not ready:
        problems = "; ".join(str(problem["what"]) for problem in told["problems"])
        raise ExecutorError(
            f"no version of {serving.settings.model!r} can be served",
            got=problems or None,
            hint=f"umbel rollback {serving.settings.model} points the alias to the version before",
        )


def _share(replicas: int) -> float:
    """The processors of this process's own Ray for each replica, one at most."""
    import ray

    # Ray counts in ten-thousandths, and rounds: a third of two would be too much for three.
    there = float(ray.cluster_resources().get("CPU", 1.0))
    return min(1.0, math.floor(there / replicas * 10_000) / 10_000)


def _serve_failed(error: BaseException) -> ExecutorError:
    return ExecutorError("the server does not answer", got=f"{type(error).__name__}: {error}"[:500])
