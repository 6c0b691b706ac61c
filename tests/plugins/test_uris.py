import doctest

import pytest

from petalign_airflow import uris
from petalign_airflow.uris import browser_url, is_below
from storage.errors import UriError

ALLOWED = ["s3://petalign/cohort", "file:///data/em/"]

INSIDE = [
    "s3://petalign/cohort",
    "s3://petalign/cohort/",
    "s3://petalign/cohort/stack 1 (raw).zarr",
    "s3://petalign/cohort/größe",
    "file:///data/em",
    "file:///data/em/a/b.tif",
]
OUTSIDE = [
    "s3://petalign",
    "s3://petalign/cohort-2",
    "s3://other/cohort",
    "s3://petalign.evil/cohort",
    "file:///data",
    "file:///data/embargo",
    "file:///etc/passwd",
]
MALFORMED = [
    "",
    "/data/em",
    "data/em",
    "http://169.254.169.254/latest/meta-data",
    "https://petalign/cohort",
    "gs://petalign/cohort",
    "S3://petalign/cohort",
    "s3:petalign/cohort",
    "s3:///cohort",
    "s3://user:secret@petalign/cohort",
    "s3://petalign:9000/cohort",
    "s3://petalign/cohort/../../other",
    "s3://petalign/cohort/./x",
    "s3://petalign/cohort//x",
    "s3://petalign/cohort/%2e%2e/x",
    "s3://petalign/cohort?versionId=1",
    "s3://petalign/cohort#x",
    "s3://petalign/cohort/*",
    "s3://petalign/cohort/{{ var.value.secret }}",
    "s3://petalign/cohort/$(id)",
    "s3://petalign/cohort/a;b",
    "s3://petalign/cohort/a\\..\\b",
    "s3://petalign/cohort/a\nb",
    "s3://petalign/cohort/a\0b",
    "file://data/em",
    "file://host/data/em",
    "file:///data/em/../../etc/passwd",
]


@pytest.mark.parametrize("uri", INSIDE)
def test_what_lies_below_a_prefix_is_allowed(uri):
    assert is_below(uri, ALLOWED)


@pytest.mark.parametrize("uri", OUTSIDE)
def test_what_lies_elsewhere_is_not(uri):
    assert not is_below(uri, ALLOWED)


@pytest.mark.parametrize("uri", MALFORMED)
def test_what_could_be_read_in_two_ways_is_an_error(uri):
    with pytest.raises(UriError):
        is_below(uri, ALLOWED)


def test_a_bucket_or_a_root_may_be_allowed_as_a_whole():
    assert is_below("s3://petalign/anything", ["s3://petalign"])
    assert is_below("file:///anything", ["file:///"])
    assert not is_below("s3://petalign/anything", [])


@pytest.mark.parametrize(
    ("uri", "environment", "url"),
    [
        ("s3://vol/a b", {"AWS_ENDPOINT_URL": "http://s3:8333/"}, "http://s3:8333/vol/a%20b"),
        ("s3://vol/a", {"AWS_REGION": "eu-west-1"}, "https://vol.s3.eu-west-1.amazonaws.com/a"),
        ("s3://vol/a", {}, "https://vol.s3.us-east-1.amazonaws.com/a"),
        ("file:///data/a b", {}, "file:///data/a%20b"),
    ],
)
def test_a_browser_finds_a_bucket_where_it_is_served(uri, environment, url):
    assert browser_url(uri, environment) == url


def test_the_examples_of_the_module_are_right():
    """The folder is not searched for doctests: importing it would start a foreign Airflow."""
    result = doctest.testmod(uris)
    assert (result.failed, result.attempted > 0) == (0, True)
