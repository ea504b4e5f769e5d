"""How are jobs of a Ray cluster spoken to, and what does each way of failing mean?

A thin layer over Ray's `JobSubmissionClient`: every request has a time limit, the address that was given is
used whatever the environment says, and each failure is one of Umbel's errors. Ray's own settings for tokens apply
(``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``). It must not know what jobs do.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from umbel.runtime.executors.reaching import token_error, unresolved
from umbel.scheduler.errors import ClusterUnavailableError, ExecutorError, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

__all__ = ["check_address", "connect", "spoken"]

#: Seconds for a connection to be made, and for an answer to begin. Uploads take their time before the answer.
TIMEOUT_S = (10.0, 120.0)
#: What Ray lets override every address.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def check_address(address: str) -> str:
    """The URL of a cluster's dashboard, as ``http://host:8265``.

    Raises:
        UsageError: it is none.
    """
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    if (
        address in (os.environ.get("RAY_ADDRESS"), f"http://{os.environ.get('RAY_ADDRESS')}")
        and "://" not in (os.environ["RAY_ADDRESS"])
    ):
        there = os.environ.get("RAY_API_SERVER_ADDRESS")
        raise UsageError(
            "this is $RAY_ADDRESS, where programs join the cluster; jobs are submitted to its dashboard",
            got=address,
            expected=f"$RAY_API_SERVER_ADDRESS, which is {there}" if there else "http://HOST:8265",
            hint="`ray start --head` prints it; on Kubernetes: kubectl port-forward service/NAME-head-svc 8265",
        )
    if re.fullmatch(r"https?://[^\s/@]+(/\S*)?", url):
        return url
    raise UsageError(
        "this is not the address of a cluster's dashboard",
        got=re.sub(r"//[^/]*@", "//…@", address),
        expected="http://HOST:8265, or https://…",
        hint="`ray start --head` prints it; on Kubernetes: kubectl port-forward service/NAME-head-svc 8265",
    )


def connect(address: str) -> JobSubmissionClient:
    """A client for the cluster at a checked address. One request is made, to see that it is there and of this Ray.

    Raises:
        ClusterUnavailableError: nobody answers.
        UsageError: the token is wrong or missing, it is another Ray, or not Ray at all.
    """
    import ray
    import requests
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc, unused-ignore]  # Ray is untyped
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=TIMEOUT_S, **options)

    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    with spoken(address), _no_overrides():
        try:
            client = Client(address)
            theirs = str(client._server_ray_version)
        except (KeyError, TypeError, requests.exceptions.JSONDecodeError) as error:
            raise _not_ray(address, error) from None
        except requests.exceptions.HTTPError as error:
            if error.response is not None and error.response.status_code < 500:
                raise _not_ray(address, error) from None
            raise
        except RuntimeError as error:
            if "404" in str(error):
                raise _not_ray(address, error) from None
            raise
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise UsageError(
            "the cluster runs another Ray than this machine",
            got=f"Ray {theirs} at {address}, Ray {ray.__version__} here",
            expected="the same minor version: Umbel is made for one",
            hint=f"pip install an Umbel made for Ray {'.'.join(theirs.split('.')[:2])}, or update the cluster",
        )
    return client


@contextmanager
def spoken(address: str) -> Iterator[None]:
    """What goes wrong inside with a request is raised as one of Umbel's errors.

    Raises:
        ClusterUnavailableError: nobody answers, or not as it should (status 5xx).
        UsageError: the host's name is unknown.
        AccessRefusedError: the token is wrong or missing.
        ExecutorError: the cluster refuses.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        if "Authentication failed" in error.message:
            what = "the cluster refuses the token"
        elif "Authentication required" in error.message:
            what = "the cluster asks for a token, and none was sent"
        else:  # Ray has looked for one before it asked the cluster
            what = "token authentication is on, but there is no token"
        raise token_error(what, address) from None
    except (OSError, requests.exceptions.RequestException, aiohttp.ClientError) as error:
        unknown = unresolved(address, error)
        if unknown is not None:
            raise unknown from None
        raise ClusterUnavailableError(
            "the cluster does not answer",
            got=f"{address}: {_short(error)}",
            expected="the address of a running cluster's dashboard, as http://HOST:8265",
            hint="is it running, and can it be reached from here? Running the command again later is safe",
        ) from None
    except RuntimeError as error:
        status = re.search(r"status code (\d{3})", str(error))
        if status is not None and status[1].startswith("5") and "Traceback" not in str(error):
            raise ClusterUnavailableError(
                "the cluster does not answer as it should", got=f"{address}: {_short(error)}", hint="try again later"
            ) from None
        raise ExecutorError("the cluster refuses", got=f"{address}: {_short(error)}") from None


@contextmanager
def _no_overrides() -> Iterator[None]:
    """While inside, Ray takes the address that it is given."""
    kept = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _not_ray(address: str, error: Exception) -> UsageError:
    return UsageError(
        "what answers there is not a Ray dashboard with a job server",
        got=f"{address}: {_short(error)}",
        expected="http://HOST:8265, where `ray start --head` says that the dashboard is",
    )


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if re.match(r"\w*Error\b|\w+\.\w*Error\b", line)), "")
    return f"{type(error).__name__}: {(text or ' '.join(lines))[:300]}"
