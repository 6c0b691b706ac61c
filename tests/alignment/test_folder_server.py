import http.client
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from alignment.folder_server import FolderServer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"outside")
    inside = tmp_path / "volume"
    (inside / "c" / "0").mkdir(parents=True)
    (inside / "zarr.json").write_text('{"a": 1}')
    (inside / "c" / "0" / "0").write_bytes(bytes(range(100)))
    (inside / "escape").symlink_to(tmp_path / "secret")
    with FolderServer(inside) as server:
        yield server


def ask(url, *, method="GET", headers=None, path=None):
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request(method, path or parts.path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_a_file_is_served_whole_to_pages_of_any_origin(folder):
    status, headers, body = ask(f"{folder.url}/zarr.json")
    assert (status, body) == (200, b'{"a": 1}')
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == "8"


@pytest.mark.parametrize(
    ("asked", "expected", "content_range"),
    [
        ("bytes=0-9", range(10), "bytes 0-9/100"),
        ("bytes=90-", range(90, 100), "bytes 90-99/100"),
        ("bytes=95-500", range(95, 100), "bytes 95-99/100"),
        ("bytes=-4", range(96, 100), "bytes 96-99/100"),
        ("bytes=-400", range(100), "bytes 0-99/100"),
    ],
)
def test_a_range_is_answered_with_that_part(folder, asked, expected, content_range):
    status, headers, body = ask(f"{folder.url}/c/0/0", headers={"Range": asked})
    assert (status, body) == (206, bytes(expected))
    assert headers["Content-Range"] == content_range
    assert "Content-Range" in headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=7-3", "bytes=-0"])
def test_a_range_without_a_byte_is_refused(folder, asked):
    status, headers, body = ask(f"{folder.url}/c/0/0", headers={"Range": asked})
    assert (status, body, headers["Content-Range"]) == (416, b"", "bytes */100")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b"])
def test_a_range_that_is_not_understood_gives_the_whole_file(folder, asked):
    status, headers, body = ask(f"{folder.url}/c/0/0", headers={"Range": asked})
    assert (status, len(body)) == (200, 100)
    assert "Content-Range" not in headers


@pytest.mark.parametrize(
    "path",
    ["c", "c/0", "", "none", "../secret", "%2e%2e/secret", "escape", "c/0/0%00", "/etc/passwd"],
)
def test_only_files_of_the_folder_are_served(folder, path):
    prefix = urlsplit(folder.url).path
    status, _, body = ask(folder.url, path=f"{prefix}/{path}")
    assert (status, body) == (404, b"")


def test_a_page_that_guesses_the_port_reads_nothing(folder, tmp_path):
    assert ask(folder.url, path=str(tmp_path / "volume" / "zarr.json"))[0] == 404
    assert ask(folder.url, path="/zarr.json")[0] == 404
    assert ask(folder.url, path="/another-word/zarr.json")[0] == 404


def test_browsers_may_ask_first_and_see_sizes_but_not_write(folder):
    status, headers, _ = ask(f"{folder.url}/c/0/0", method="OPTIONS")
    assert (status, headers["Access-Control-Allow-Headers"]) == (204, "Range")
    status, headers, body = ask(f"{folder.url}/c/0/0", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "100", b"")
    assert ask(f"{folder.url}/c/0/0", method="PUT")[0] == 501


def test_one_connection_serves_many_ranges(folder):
    parts = urlsplit(f"{folder.url}/c/0/0")
    with closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        for k in range(3):
            connection.request("GET", parts.path, headers={"Range": f"bytes={k}-{k}"})
            assert connection.getresponse().read() == bytes([k])
