"""Let a browser on this machine read one folder: read-only HTTP with CORS and byte ranges.

A volume in a folder opens in Neuroglancer only so: browsers do not read files, and a viewer wants
single chunks out of shards. Nothing of it is needed where the volume lies on S3.
"""

from __future__ import annotations

import mimetypes
import os
import re
import secrets
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE_BYTES = 1 << 20


class FolderServer:
    """Serves one folder to browsers on this machine: read-only, with CORS and byte ranges.

    It listens on the loopback address, and its URL holds a random word, so that neither other
    machines nor web pages that guess the port can read the folder.
    """

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._root = folder.resolve(strict=True)
        self._word = secrets.token_urlsafe(12)
        handler = partial(_FolderHandler, self._root, f"/{self._word}/")
        self._server = ThreadingHTTPServer((LOOPBACK, port), handler)
        run = partial(self._server.serve_forever, poll_interval=0.05)  # how soon it can stop, s
        self._thread = Thread(target=run, name="folder", daemon=True)

    @property
    def url(self) -> str:
        """Where the folder is served, without a trailing slash."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/{self._word}"

    def __enter__(self) -> FolderServer:
        """Start to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _FolderHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a view asks for hundreds of ranges; one connection serves them

    def __init__(self, root: Path, prefix: str, *request: Any) -> None:
        self._root, self._prefix = root, prefix
        super().__init__(*request)

    def do_OPTIONS(self) -> None:
        """Answer a browser that asks whether it may send a Range header."""
        self.send_response(HTTPStatus.NO_CONTENT)
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.end_headers()

    def do_HEAD(self) -> None:
        """Answer as for GET, without the bytes."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """Send a file, or the one range of it that was asked for."""
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self._file()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            span = _span(self.headers.get("Range"), size)
            start, stop = span or (0, size)
            if span and start >= stop:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"bytes */{size}")
                return
            self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
            if span:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            file.seek(start)
            with suppress(ConnectionError):  # browsers drop what has left the view
                while with_body and start < stop:
                    piece = file.read(min(_PIECE_BYTES, stop - start))
                    self.wfile.write(piece)
                    start += len(piece)

    def _file(self) -> Path | None:
        """Return the file that is asked for, None unless it lies in the folder."""
        path = unquote(urlsplit(self.path).path)
        if not path.startswith(self._prefix) or "\0" in path:
            return None
        found = (self._root / path.removeprefix(self._prefix)).resolve()
        return found if found.is_relative_to(self._root) and found.is_file() else None

    def _refuse(self, status: HTTPStatus, content_range: str = "") -> None:
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        """Add what every answer carries."""
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the terminal for the user."""


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return [start, stop) of a Range header, empty if it holds no byte of the file.

    None stands for the whole file: there is no header, or it is not understood. RFC 9110, section
    14.2, lets a server ignore one; this one does so with several ranges.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size
