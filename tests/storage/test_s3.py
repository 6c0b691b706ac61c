"""S3 as it is reached: the small operations, and what errors become."""

from __future__ import annotations

import time

import pytest

from storage import s3
from storage.errors import AccessError, MissingError, UriError
from storage.store import errors_named


def test_an_object_is_put_looked_at_copied_and_deleted(s3_root):
    etag = s3.put(f"{s3_root}/a", b"voxels", mode="create")
    assert s3.head(f"{s3_root}/a") == (6, etag)
    s3.copy(f"{s3_root}/a", f"{s3_root}/b c%20ü")
    assert s3.read(f"{s3_root}/b c%20ü")[0] == b"voxels"
    for _ in range(2):
        s3.delete(f"{s3_root}/a")
    with pytest.raises(FileNotFoundError):
        s3.head(f"{s3_root}/a")
    assert [key for key, _, _ in s3.walk(s3_root)] == ["b c%20ü"]


def test_a_copy_stays_in_its_bucket(s3_root):
    with pytest.raises(UriError, match="inside one bucket"):
        s3.copy(f"{s3_root}/a", "s3://other-bucket/a")


def test_age_is_measured_by_the_server(s3_root, monkeypatch):
    uri = f"{s3_root}/lease ü"
    s3.put(uri, b"1", mode="create")
    before = s3.age_s(uri)
    assert 0 <= before <= 2
    time.sleep(2)
    assert before + 1 <= s3.age_s(uri) <= before + 5
    s3.put(uri, b"2", mode="overwrite")
    assert s3.age_s(uri) <= 1
    with pytest.raises(FileNotFoundError):
        s3.age_s(f"{s3_root}/absent")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessError), errors_named(uri, "look up"):
        s3.age_s(uri)


def test_an_absent_object_is_missing(s3_root):
    with pytest.raises(MissingError), errors_named(f"{s3_root}/x", "look up"):
        s3.age_s(f"{s3_root}/x")
