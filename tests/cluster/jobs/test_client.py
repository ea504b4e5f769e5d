"""What is said when a cluster can't be spoken to: a server that answers as it is told stands for the cluster."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import ray

from umbel.cluster.jobs.client import check_address, connect, spoken
from umbel.scheduler.errors import ClusterUnavailableError, ExecutorError, UsageError


class Cluster:
    """A server whose every answer is the same."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps({"ray_version": ray.__version__, "version": "4"})
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(cluster.status)
                self.end_headers()
                self.wfile.write(cluster.body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name in list(os.environ):
        if name.startswith("RAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    served = Cluster()
    served.thread.start()
    yield served
    served.server.shutdown()
    served.thread.join()
    served.server.server_close()


def test_a_cluster_of_this_ray_is_spoken_to(cluster: Cluster) -> None:
    assert connect(cluster.address).get_address() == cluster.address


def test_the_address_that_is_given_counts_and_not_the_environments(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert connect(cluster.address).get_address() == cluster.address
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


def test_another_ray(cluster: Cluster) -> None:
    cluster.body = json.dumps({"ray_version": "2.9.3"})
    with pytest.raises(UsageError, match="another Ray") as refused:
        connect(cluster.address)
    assert refused.value.got == f"Ray 2.9.3 at {cluster.address}, Ray {ray.__version__} here"


@pytest.mark.parametrize(("status", "body"), [(200, "<html>hello</html>"), (200, "{}"), (404, "?"), (418, "teapot")])
def test_something_else_than_ray(cluster: Cluster, status: int, body: str) -> None:
    cluster.status, cluster.body = status, body
    with pytest.raises(UsageError, match="not a Ray dashboard"):
        connect(cluster.address)


@pytest.mark.parametrize(("status", "said"), [(401, "asks for a token"), (403, "refuses the token")])
def test_tokens_that_are_missing_or_wrong(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    cluster.status, cluster.body = status, "no"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "sesame" * 8)
    with pytest.raises(UsageError, match=said) as refused:
        connect(cluster.address)
    assert "sesame" not in str(refused.value)
    assert "RAY_AUTH_MODE=disabled, RAY_AUTH_TOKEN is set" in str(refused.value.got)


def test_a_cluster_that_has_a_bad_time_may_be_tried_again(cluster: Cluster) -> None:
    cluster.status, cluster.body = 503, "starting"
    with pytest.raises(ClusterUnavailableError):
        connect(cluster.address)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ClusterUnavailableError, match="does not answer") as refused:
        connect(f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in str(refused.value.got)
    with pytest.raises(UsageError, match="no host of this name"):
        connect("http://no-such-host.invalid:8265")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.com/team", "https://ray.example.com/team"),
    ],
)
def test_addresses(given: str, url: str) -> None:
    assert check_address(given) == url


@pytest.mark.parametrize("given", ["ray://head:10001", "", "http://", "http://ada:sesame@head:8265"])
def test_what_is_no_address_of_a_dashboard(given: str) -> None:
    with pytest.raises(UsageError, match="dashboard") as refused:
        check_address(given)
    assert "sesame" not in str(refused.value)


def test_the_address_for_programs_is_told_from_the_dashboards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://10.0.0.1:8265")
    with pytest.raises(UsageError, match=r"(?s)this is \$RAY_ADDRESS.*SERVER_ADDRESS, which is http://10.0.0.1:8265"):
        check_address("10.0.0.1:6379")
    assert check_address("http://10.0.0.1:8265") == "http://10.0.0.1:8265"


def test_a_host_that_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no host of this name"), spoken("http://nonsense"):
        raise ConnectionError("Failed to resolve 'nonsense' ([Errno -2] Name or service not known)")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Request failed with status code 400: no.", ExecutorError),
        ("Request failed with status code 502: bad gateway.", ClusterUnavailableError),
        ("Request failed with status code 500: Traceback\n  File x\nValueError: it already exists", ExecutorError),
    ],
)
def test_refusals_are_told_from_trouble(text: str, kind: type[ExecutorError]) -> None:
    with pytest.raises(ExecutorError) as refused, spoken("http://head:8265"):
        raise RuntimeError(text)
    assert type(refused.value) is kind
