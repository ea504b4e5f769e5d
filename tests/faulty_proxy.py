"""A proxy between S3's clients and its server that makes a share of the requests fail, for all processes alike."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.seaweedfs import S3Server

__all__ = ["FAULTS", "FaultyProxy", "faulty_proxy"]

#: "503", "500": refused before anything happened. "reset": the connection ends instead of a request's being passed on.
#: "lost reply": … instead of its answer. "cut": the answer ends in mid-body. "timeout": the answer comes too late.
#: "slow": it comes late, and counts.
FAULTS = ("503", "500", "reset", "lost reply", "cut", "timeout", "slow")
_CODES = {"503": (503, "SlowDown"), "500": (500, "InternalError")}
_DROPPED = ("connection", "transfer-encoding", "keep-alive")


class FaultyProxy(ThreadingHTTPServer):
    """Listens on a port of its own and passes requests on to an S3 server.

    Args:
        server: where to.
        rate: share of requests that fail.
        seed: of which ones do, by the order in which they arrive.
        faults: which ones there are.
        timeout_s: how late the answer of a request that times out comes.
        answer: instead of a fault, answer every request by this status and S3 error code.
        outage: as long as this file exists, every request is refused; any process can make and remove it.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        server: S3Server,
        *,
        rate: float = 0.2,
        seed: int = 0,
        faults: Sequence[str] = FAULTS,
        timeout_s: float = 2.0,
        answer: tuple[int, str] | None = None,
        outage: Path | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(server.endpoint).netloc
        self.rate = rate
        self.timeout_s = timeout_s
        self.outage = outage
        self._answer = answer
        self._faults = list(faults)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        #: By method: requests that came. By fault: requests that were made to fail.
        self.requests: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        #: Bytes of bodies, from clients and to them.
        self.sent_bytes = self.received_bytes = 0

    @property
    def answer(self) -> tuple[int, str] | None:
        """What every request is answered by now, instead of being passed on."""
        return _CODES["503"] if self.outage is not None and self.outage.exists() else self._answer

    def forget(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self.requests.clear()
            self.injected.clear()
            self.sent_bytes = self.received_bytes = 0

    def note_bytes(self, sent: int, received: int) -> None:
        with self._lock:
            self.sent_bytes += sent
            self.received_bytes += received

    def next_fault(self, method: str) -> str | None:
        with self._lock:
            self.requests[method] += 1
            if self._random.random() >= self.rate:
                return None
            fault = self._random.choice(self._faults)
            self.injected[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.next_fault(self.command)
        refusal = self.server.answer or (_CODES.get(fault) if fault else None)
        if refusal is not None:
            self._refuse(*refusal)
            return
        if fault == "reset":
            self._hang_up()
            return
        status, headers, content = self._pass_on(body)
        self.server.note_bytes(len(body), len(content))
        if fault == "lost reply":
            self._hang_up()
            return
        if fault in ("timeout", "slow"):
            time.sleep(self.server.timeout_s if fault == "timeout" else 0.2)
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _DROPPED:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
            return
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            found = [(name, value) for name, value in answer.getheaders() if name.lower() != "content-length"]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            return answer.status, [*found, ("Content-Length", length or "0")], content
        finally:
            connection.close()

    def _refuse(self, status: int, code: str) -> None:
        content = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@contextmanager
def faulty_proxy(server: S3Server, **options: Any) -> Iterator[tuple[FaultyProxy, S3Server]]:
    """The proxy, and the server as it is seen through it."""
    proxy = FaultyProxy(server, **options)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy, replace(server, endpoint=f"http://127.0.0.1:{proxy.server_port}")
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
