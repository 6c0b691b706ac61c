"""Where keys come from, what happens when they are wrong or expire, and that nobody sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from storage import credentials, s3, store, volume
from storage.errors import AccessError, StorageError, UnavailableError
from storage.volume import Box

CANARY = "canary0SECRET0f3b9"


@pytest.fixture
def keys(s3_root, monkeypatch, tmp_path) -> tuple[str, str]:
    """Take the keys out of the environment, which points to files that do not exist yet."""
    found = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return found


def works(root: str) -> None:
    store.create_bytes(f"{root}/object", b"voxels")
    assert store.read_bytes(f"{root}/object") == b"voxels"
    assert store.age_s(f"{root}/object") >= 0


def test_keys_and_server_of_a_profile(s3_root, s3_endpoint, keys, tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_endpoint}\n"
    )
    with pytest.raises(AccessError, match="AWS_PROFILE"):
        store.read_bytes(f"{s3_root}/object")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    works(s3_root)


def test_the_server_of_a_profile_for_keys_of_the_environment(
    s3_root, s3_endpoint, keys, tmp_path, monkeypatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    (tmp_path / "config").write_text(
        "[default]\nregion = us-east-1\nservices = here\nendpoint_url = http://127.0.0.1:9\n"
        f"[services here]\ns3 =\n  endpoint_url = {s3_endpoint}\nec2 =\n  endpoint_url = x\n"
    )
    works(s3_root)


def test_keys_that_expire_are_renewed(s3_root, s3_endpoint, keys, tmp_path, monkeypatch):
    script = tmp_path / "keys.py"
    script.write_text(
        "import datetime, json, pathlib\n"
        f"calls = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "calls.write_text((calls.read_text() if calls.exists() else '') + '.')\n"
        "then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2)\n"
        f"print(json.dumps({{'Version': 1, 'AccessKeyId': {keys[0]!r}, "
        f"'SecretAccessKey': {keys[1]!r}, 'Expiration': then.isoformat()}}))\n"
    )
    (tmp_path / "config").write_text(
        f"[default]\nregion = us-east-1\nendpoint_url = {s3_endpoint}\n"
        f"credential_process = {sys.executable} {script}\n"
    )
    monkeypatch.setattr(credentials, "LIFETIME", credentials.LIFETIME * 0)
    works(s3_root)
    assert len((tmp_path / "calls").read_text()) > 2


def test_no_keys_anywhere_are_an_error_at_once(s3_root, keys):
    with pytest.raises(AccessError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        store.read_bytes(f"{s3_root}/object")


def test_a_profile_that_does_not_exist_is_named(s3_root, keys, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "typo")
    with pytest.raises(AccessError, match="typo"):
        store.read_bytes(f"{s3_root}/object")


def test_keys_of_the_environment_need_no_botocore():
    code = (
        "import sys; from storage import s3; s3.client('s3://bucket/key'); "
        "sys.exit('botocore' in sys.modules)"
    )
    environment = {
        **os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "c",
    }  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


class Refusing:
    """A server that answers every request with one status, and counts them."""

    def __init__(self) -> None:
        self.requests = 0
        self.answer = 403, "AccessDenied"
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def refuse(self) -> None:
                server.requests += 1
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, code = server.answer
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = refuse

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def refusing(monkeypatch) -> Iterator[Refusing]:
    server = Refusing()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "petalign")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield server
    server.close()


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (401, "x"), (400, "ExpiredToken")])
def test_who_is_refused_does_not_ask_again(refusing, answer):
    refusing.answer = answer
    uri = "s3://bucket/run/object"
    attempts = [
        lambda: store.read_bytes(uri),
        lambda: store.create_bytes(uri, b"1"),
        lambda: store.replace_bytes(uri, b"1"),
        lambda: store.list_names(uri),
    ]
    for number, attempt in enumerate(attempts, start=1):
        with pytest.raises(AccessError, match=uri):
            attempt()
        assert refusing.requests == number


def test_a_read_of_many_chunks_stops_at_the_first_refusals(refusing):
    array = _array_of_64_chunks("s3://bucket/run")
    with pytest.raises(AccessError, match="access refused"):
        volume.read(array, Box((0, 0, 0), (1, 64, 64), mip=0))
    assert refusing.requests < 20  # zarr has ten under way


def _array_of_64_chunks(root: str) -> volume.Array:
    """Return an array without asking for its metadata."""
    from storage.arrays import _assembled
    from storage.checked import CheckedStore

    document = {
        "zarr_format": 3, "node_type": "array", "shape": [1, 64, 64], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": [{"name": "bytes"}],
    }  # fmt: skip
    return _assembled(f"{root}/a/zarr.json", document, CheckedStore(f"{root}/a"))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", None])
def test_errors_and_stores_never_show_the_key(refusing, monkeypatch, endpoint, caplog, tmp_path):
    import pickle
    import traceback
    from datetime import timedelta

    from storage.checked import CheckedStore

    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setattr(s3, "RETRY", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
    caplog.set_level("DEBUG")
    s3._client.cache_clear()
    uri = "s3://bucket/run/object"
    shown = []
    for attempt in (store.read_bytes, store.exists, store.age_s, store.size, store.list_names):
        with pytest.raises((AccessError, UnavailableError)) as found:
            attempt(uri)
        shown += traceback.format_exception(found.value)
    checked = CheckedStore("s3://bucket/run", read_only=True)
    with pytest.raises(StorageError) as found:
        volume.open_foreign("s3://bucket/run")
    shown += traceback.format_exception(found.value)
    client = s3.client(uri)[0]
    shown += [repr(checked), str(checked), repr(client), str(pickle.dumps(checked)), caplog.text]
    shown.append(json.dumps(checked.__dict__, default=repr))
    assert not [text for text in shown if CANARY in text]
    s3._client.cache_clear()
