"""`umbel.serve`: start a server of a registered model on Ray Serve, and hold it.

What can be wrong is found here, before anything is started: the model, its aliases, trust, the port. It must not know
how requests are answered.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from uuid import uuid4

from umbel.cluster.serving.settings import ServeSettings, make_settings
from umbel.scheduler.errors import ExecutorError, UmbelError, UsageError
from umbel.storage.registry.trust import is_trusted
from umbel.storage.store import Store, open_store

__all__ = ["Serving", "serve"]

#: The port of Ray Serve's own documentation.
PORT = 8000
#: Seconds that a server gets to answer what is under way and to write its log.
STOP_S = 30.0


class Serving:
    """A server that runs. Leaving it as a context, or `stop`, ends it."""

    def __init__(self, name: str, url: str, handle: Any, settings: ServeSettings, *, owns_ray: bool) -> None:
        #: The name of the Serve application.
        self.name = name
        #: Where it listens: ``http://127.0.0.1:8000``.
        self.url = url
        self.settings = settings
        self._handle = handle
        self._owns_ray = owns_ray
        self._stopped = False

    def __repr__(self) -> str:
        return f"<{self.settings.model} served at {self.url}>"

    def predict(self, group: str, inputs: Any, *, key: str | None = None, request_id: str | None = None) -> Any:
        """What the model of a group answers, without HTTP: for callers in the cluster.

        Args:
            group: its name.
            inputs: plain data: numbers, texts, lists and dicts.
            key: names the caller: calls with one key meet the same version.
            request_id: names the call in the log; None: one is made.

        Returns:
            ``{"outputs": …, "version": …, "alias": …, "request_id": …}``.

        Raises:
            NotFoundError: there is no such group; near names are given.
            UsageError: the inputs are not what the model takes.
            UmbelError: the model failed, or can't be loaded now.
            ExecutorError: too many requests wait, or the server is gone.
        """
        return self._call("predict", group, inputs, request_id or uuid4().hex, key)

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
            ending.join(STOP_S)
            if ending.is_alive():
                text = f"the server did not end within {STOP_S:g} s: the last seconds of its log may be lost"
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
    trust: bool = False,
    host: str = "127.0.0.1",
    port: int | None = None,
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
    """Serve a registered model by HTTP, with Ray Serve.

    Returns when it answers. Moving an alias reaches it within seconds; nothing is restarted.

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
        trust: load models that carry code, even if the store is not listed as trusted.
        host: where to listen: "127.0.0.1" for this machine only, "0.0.0.0" for all.
        port: where to listen; 0 takes a free one. None: 8000, or where the cluster's Serve listens already.
        prefix: the path under which the interface lies, on a cluster that serves several models.
        name: of the Serve application; None: ``umbel-<model>``.
        replicas: processes that answer.
        cpus: that each holds; None: one, or on a Ray that is started for it what there is.
        gpus: that each holds.
        cached_groups: models that a replica keeps in memory.
        max_ongoing: requests that a replica works on at once.
        max_queued: requests that may wait; more are turned away with 503 and Retry-After.
        max_body_bytes: of a request.
        max_batch: predictions that one request may ask for.
        poll_s: seconds between two looks at the aliases.
        load_timeout_s: how long a request waits for a model that must be loaded.
        access_log: a line a request in Serve's log.
        address: of a Ray cluster; None: that of this process, or $RAY_ADDRESS; else one is started here.

    Raises:
        NotFoundError: there is no such model or alias.
        UntrustedError: its models carry code, and the store is not trusted.
        UsageError: an argument can't be meant; the port is taken.
        StoreError: the store can't be read.
        ExecutorError: Ray can't be reached or started; no version can be served.
    """
    if replicas < 1 or max_ongoing < 1 or max_queued < 0:
        raise UsageError(
            "replicas, max_ongoing and max_queued are counts", got=f"{replicas}, {max_ongoing}, {max_queued}"
        )
    if not prefix.startswith("/") or "{" in prefix or (prefix != "/" and prefix.endswith("/")):
        raise UsageError("this can't be the prefix of a path", got=prefix, expected="/ or /models, say")
    opened = _opened(store, storage_options)
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
    _check_servable(opened, settings)
    owns_ray, listens = _connect(address, host, port)
    application_name = name or f"umbel-{model}"
    try:
        handle = _deploy(
            opened,
            settings,
            name=application_name,
            prefix=prefix,
            replicas=replicas,
            cpus=cpus if cpus is not None else _share(replicas) if owns_ray else 1.0,
            gpus=gpus,
            max_ongoing=max_ongoing,
            max_queued=max_queued,
            access_log=access_log,
        )
        serving = Serving(application_name, listens + prefix.rstrip("/"), handle, settings, owns_ray=owns_ray)
        _check_ready(serving)
    except BaseException:
        if owns_ray:
            import ray

            ray.shutdown()
        raise
    return serving


def _opened(store: str | Store | None, storage_options: Mapping[str, Any] | None) -> Store:
    from umbel.runtime.driver.run import default_store

    opened = store if isinstance(store, Store) else open_store(store or default_store(), storage_options)
    if opened.objects.is_process_local:
        raise UsageError("only this process sees this store", got=opened.url, expected="one that replicas see, too")
    return opened


def _check_servable(store: Store, settings: ServeSettings) -> None:
    """Find what would keep the replicas from starting."""
    registered = store.registry.model(settings.model)
    found = {alias: registered.version(registered.resolve(alias).version) for alias in settings.aliases}
    version = found[settings.alias]
    unknown = [group for group in settings.splits.groups if group not in version.groups]
    for group in unknown:
        version.row(group)  # raises, with near names
    if not settings.trust:
        for each in found.values():
            for group in each.groups:
                if each.carries_code(group):
                    each.load(group)  # raises, with what to do


def _connect(address: str | None, host: str, port: int | None) -> tuple[bool, str]:
    """Connect to Ray and see to it that Serve listens: whether Ray was started here, and the URL."""
    import ray
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions
    from ray.serve.context import _get_global_client

    from umbel.runtime.executors.ray_cluster import connect

    was_connected = ray.is_initialized()
    starts = not was_connected and not address and not os.environ.get("RAY_ADDRESS")
    if starts:  # before Ray takes seconds to start
        port = _free_port(host, port)
    connect(address)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        running = client.http_config
        if port not in (None, 0, running.port):
            raise UsageError(
                "Ray Serve listens elsewhere on this cluster, and has one port for all",
                got=port,
                expected=str(running.port),
                hint=f"leave --port out, or say --port {running.port}; --prefix tells models apart",
            )
        return False, f"http://{_shown(running.host)}:{running.port}"
    if not starts:
        port = _free_port(host, port)
    try:
        ray_serve.start(http_options=HTTPOptions(host=host, port=port))
    except Exception as error:
        if starts:
            ray.shutdown()
        raise ExecutorError("Ray Serve can't be started", got=f"{type(error).__name__}: {error}") from error
    return starts, f"http://{_shown(host)}:{port}"


def _deploy(store: Store, settings: ServeSettings, *, name: str, prefix: str, **options: Any) -> Any:
    from ray import serve as ray_serve

    from umbel.cluster.serving.replica import application

    try:
        return ray_serve.run(application(store.objects, settings, **options), name=name, route_prefix=prefix)
    except Exception as error:
        raise ExecutorError(
            "Ray Serve could not start the server",
            got=str(error)[:1000],
            hint="the cluster needs Umbel and what the models need, and room for the replicas",
        ) from error


def _check_ready(serving: Serving) -> None:
    ready, told = serving.readiness()
    if not ready:
        problems = "; ".join(str(problem["what"]) for problem in told["problems"])
        serving.stop()
        raise ExecutorError(
            f"no version of {serving.settings.model!r} can be served",
            got=problems or None,
            hint=f"umbel rollback {serving.settings.model} points the alias to the version before",
        )


def _free_port(host: str, port: int | None) -> int:
    """The port, if nobody listens there; 0: a free one. Ray Serve shares ports (SO_REUSEPORT), so it would not tell.

    Raises:
        UsageError: it is taken, or this machine has no such address.
    """
    wanted = PORT if port is None else port
    try:
        family = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # connections that have just ended don't count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, wanted))
            probe.listen(1)
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UsageError(
            "this server can't listen there",
            got=f"{host}:{wanted}: {getattr(error, 'strerror', None) or error}",
            expected="a port that nobody listens on, at an address of this machine",
            hint="--port 0 takes a free one; another server may be running",
        ) from None


def _share(replicas: int) -> float:
    """The processors of this machine for each replica, one at most."""
    return min(1.0, (os.cpu_count() or 1) / replicas)


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _serve_failed(error: BaseException) -> ExecutorError:
    return ExecutorError("the server does not answer", got=f"{type(error).__name__}: {error}"[:500])
