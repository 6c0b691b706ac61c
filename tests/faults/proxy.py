"""A proxy before the S3 server that makes one chosen request go wrong, in one chosen way.

It listens on loopback, forwards requests as they come (their signatures cover the Host header,
which stays the client's), counts them, and strikes at the n-th that matches.
"""

from __future__ import annotations

import http.client
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faults.fault import AFTER, ANSWER, BEFORE, REQUEST, Fault, Operation

HANG_S = 20.0
_SLOW_PIECES, _SLOW_PAUSE_S = 20, 0.03


class FaultProxy:
    """Stands between client and server; `install` a fault, then look at `operations`."""

    def __init__(self, upstream: str, port: int = 0) -> None:
        self.upstream = urlsplit(upstream)
        self.operations: list[Operation] = []
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Relay,), {"proxy": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def install(self, fault: Fault | None) -> None:
        """Let `fault` strike from now on, None for no fault; the count of operations restarts."""
        with self._lock:
            self._fault = fault
            self.operations = []

    def note(self, operation: Operation) -> Fault | None:
        """Count an operation; return the fault that strikes it, if one does."""
        with self._lock:
            self.operations.append(operation)
            if self._fault is not None and self._fault.strikes(operation):
                return self._fault
            return None

    def close(self) -> None:
        """Stop listening; connections that hang are let go."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return the proxy itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that are killed or give up are what this is for."""


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy
    server_side: http.client.HTTPConnection | None = None

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.proxy.note(self._operation())
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind in BEFORE:
            self._instead(fault)
            return
        if fault is not None and kind in REQUEST and body:
            body = fault.flip(body)
        status, headers, data = self._forward(body)
        if fault is not None and kind in AFTER:
            if kind == "kill after" and fault.kill is not None:
                fault.kill()
            self._reset()
            return
        self._answer(status, headers, data, fault if kind in ANSWER else None)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = relay

    def _operation(self) -> Operation:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        if self.command == "GET" and "list-type" in query:
            return Operation("LIST", query.get("prefix", [""])[0])
        return Operation(self.command, unquote(url.path).lstrip("/").partition("/")[2])

    def _instead(self, fault: Fault) -> None:
        """Answer without having asked the server."""
        if fault.kind == "kill before":
            if fault.kill is not None:
                fault.kill()
            self._reset()
        elif fault.kind == "reset":
            self._reset()
        elif fault.kind == "hang":
            deadline = time.monotonic() + HANG_S
            while time.monotonic() < deadline and not self.proxy.closing.is_set():
                if select.select([self.connection], [], [], 0.05)[0]:
                    break  # the client has had enough
            self._reset()
        else:
            status, code = {"error 500": (500, "InternalError"), "404": (404, "NoSuchKey")}.get(
                fault.kind, (503, "SlowDown")
            )
            text = (
                f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>"
            )
            self._answer(status, [("Content-Type", "application/xml")], text.encode(), None)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the server over this client's own connection to it, which may have been closed."""
        for attempt in (1, 2):
            if self.server_side is None:
                self.server_side = http.client.HTTPConnection(
                    self.proxy.upstream.hostname or "", self.proxy.upstream.port, timeout=60
                )
            try:
                self.server_side.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    self.server_side.putheader(name, value)
                self.server_side.endheaders(body)
                answer = self.server_side.getresponse()
                data = answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.server_side.close()
                self.server_side = None
                if attempt == 2:
                    raise
            else:
                return answer.status, answer.getheaders(), data
        raise AssertionError("the second attempt returns or raises")

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, fault: Fault | None
    ) -> None:
        length = len(data)
        if self.command == "HEAD":
            length = int({k.lower(): v for k, v in headers}.get("content-length", "0"))
        kind = fault.kind if fault is not None and data else ""
        if kind == "lying length":
            data = data[: length // 2]
            length = len(data)
        elif fault is not None and kind == "flipped answer":
            data = fault.flip(data)
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if kind == "short body":
            self.wfile.write(data[: length // 2])
            self.close_connection = True
        elif kind == "slow":
            step = -(-length // _SLOW_PIECES)
            for start in range(0, length, step):
                time.sleep(_SLOW_PAUSE_S)
                self.wfile.write(data[start : start + step])
        elif self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        """Cut the connection without the courtesies of TCP."""
        self.close_connection = True
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with suppress(OSError):
            self.connection.close()

    def finish(self) -> None:
        """Close both sides."""
        if self.server_side is not None:
            self.server_side.close()
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
