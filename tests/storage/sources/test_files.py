"""What tells versions of a source apart, from listings of any length and order."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import store
from storage.sources.files import inflate, slab_digests


def _digests(objects):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "walk", lambda uri: iter(objects))
        return slab_digests("file:///raw", lambda key: int(key.split("/")[0]))


OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(["0/0", "0/1", "1/0", "2/7"]), st.integers(0, 9), st.text(max_size=2)
    ),
    unique_by=lambda found: found[0],
)


@given(OBJECTS, st.randoms())
def test_the_order_of_a_listing_does_not_matter(objects, random):
    assert _digests(objects) == _digests(random.sample(objects, len(objects)))


@given(OBJECTS, OBJECTS)
def test_slabs_differ_if_and_only_if_their_objects_do(before, after):
    a, b = _digests(before), _digests(after)
    for slab in range(3):
        same = {o for o in before if o[0].startswith(str(slab))} == {
            o for o in after if o[0].startswith(str(slab))
        }
        assert (a.get(slab) == b.get(slab)) == same


def test_a_long_listing_takes_no_memory():
    def listing():
        for i in range(200_000):
            yield f"{i % 100}/{i}", 1, "tag"

    tracemalloc.start()
    try:
        assert len(_digests(listing())) == 100
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress])
def test_streams_are_inflated_to_a_limit_and_to_their_end(compress):
    data = compress(b"voxels" * 100)
    assert inflate(data, 600) == b"voxels" * 100
    with pytest.raises(ValueError, match="more than 599 bytes"):
        inflate(data, 599)
    with pytest.raises(ValueError, match="cut off"):
        inflate(data[:-1], 600)
