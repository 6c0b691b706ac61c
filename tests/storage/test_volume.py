"""Arrays of a run: what is written is read, by us and by others, and what is wrong is an error."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05 import Image

from storage import store, volume
from storage.errors import (
    ChunkGridError,
    ConflictError,
    CorruptError,
    MismatchError,
    MissingError,
    StorageError,
)
from storage.grid import Box, tile
from storage.ome import level_shape, ome_attributes, write_ome_group

SHAPE, CHUNK, SHARD = (5, 100, 70), (2, 16, 16), (4, 64, 64)


def _image(root: str, path: str = "aligned/0", **changes):
    options = {
        "shape": SHAPE, "chunk": CHUNK, "shard": SHARD, "dtype": np.uint8, "fill_value": 0,
        "dimension_names": ("z", "y", "x"), **changes,
    }  # fmt: skip
    return volume.create_array(root, path, **options)


def _noise(shape=SHAPE, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def _filled(root: str, path: str = "aligned/0", **changes):
    array = _image(root, path, **changes)
    data = _noise()
    for box in tile(SHAPE, volume.write_unit(array), mip=0):
        volume.write(array, box, data[box.slices])
    return array, data


def test_what_is_written_is_read(root):
    _, data = _filled(root)
    again = volume.open_array(root, "aligned/0")
    assert volume.write_unit(again) == SHARD
    np.testing.assert_array_equal(volume.read(again, Box((0, 0, 0), SHAPE, mip=0)), data)
    part = Box((1, 10, 3), (5, 90, 66), mip=0)
    np.testing.assert_array_equal(volume.read(again, part), data[part.slices])


def test_the_digest_is_that_of_the_voxels(root):
    array = _image(root)
    data = _noise((4, 64, 64))
    digest = volume.write(array, Box((0, 0, 0), (4, 64, 64), mip=0), data.transpose(0, 1, 2))
    assert digest == hashlib.sha256(data.tobytes()).hexdigest()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_padding_is_the_same_as_numpys(tmp_path_factory, data):
    root = str(tmp_path_factory.getbasetemp() / "padding")
    array, image = _filled(root)
    start = [data.draw(st.integers(-9, n + 9)) for n in SHAPE]
    stop = [a + data.draw(st.integers(0, n + 9)) for a, n in zip(start, SHAPE, strict=True)]
    padded = np.pad(image, 130)
    expected = padded[tuple(slice(a + 130, b + 130) for a, b in zip(start, stop, strict=True))]
    got = volume.read(array, Box(tuple(start), tuple(stop), mip=0))
    np.testing.assert_array_equal(got, expected)


def test_outside_is_the_fill_value(root):
    array = volume.create_array(
        root, "sigma", shape=(1, 4, 4), chunk=(1, 4, 4), dtype=np.float32,
        fill_value=float("nan"), dimension_names=("z", "i", "j"),
    )  # fmt: skip
    volume.write_region(array, (slice(None),) * 3, np.ones((1, 4, 4), np.float32))
    got = volume.read(volume.open_array(root, "sigma"), Box((0, -1, 0), (2, 3, 4), mip=0))
    assert np.isnan(got[1]).all()
    assert np.isnan(got[0, 0]).all()
    assert (got[0, 1:] == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (3, 2, 3), (2, 4, 9, 11)])
def test_any_dtype_and_number_of_axes(tmp_path, dtype, shape):
    chunk = tuple(min(n, 4) for n in shape)
    array = volume.create_array(
        str(tmp_path), "table", shape=shape, chunk=chunk, dtype=dtype, fill_value=0,
        dimension_names=tuple("abcd"[: len(shape)]),
    )  # fmt: skip
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    whole = tuple(slice(0, n) for n in shape)
    volume.write_region(array, whole, data)
    got = volume.read_region(volume.open_array(str(tmp_path), "table"), whole)
    assert got.dtype == data.dtype
    np.testing.assert_array_equal(got, data)


def test_black_is_written_and_absent_is_an_error(root):
    array = _image(root)
    black = Box((0, 0, 0), (4, 64, 64), mip=0)
    volume.write(array, black, np.zeros(black.shape, np.uint8))
    assert store.exists(store.join(root, "aligned/0/c/0/0/0"))
    assert not volume.read(array, black).any()
    with pytest.raises(MissingError, match=r"region \[0:4, 0:64, 64:70\].*c/0/0/1 does not exist"):
        volume.read(array, Box((0, 0, 64), (4, 64, 70), mip=0))
    with pytest.raises(MissingError, match="c/0/0/1"):  # one absent shard of several
        volume.read(array, Box((0, 0, 60), (4, 64, 70), mip=0))


def test_an_absent_chunk_of_a_shard_that_is_there_is_an_error(tmp_path):
    """Plain zarr writes a shard with holes where it skips black, and fills them when it reads."""
    root = str(tmp_path)
    array = _image(root)
    sparse = _noise((4, 64, 64))
    sparse[:2, :16, 16:32] = 0
    holed = zarr.open_array(f"{root}/aligned/0", mode="r+", config={"write_empty_chunks": False})
    holed[0:4, 0:64, 0:64] = sparse
    assert not holed[0:2, 0:16, 16:32].any()
    with pytest.raises(MissingError, match=r"1 of the shard's chunks.*first at \(0, 0, 1\)"):
        volume.read(array, Box((0, 0, 0), (2, 16, 16), mip=0))
    with pytest.raises(MissingError, match="written"):
        volume.read(array, Box((0, 0, 0), (4, 64, 64), mip=0))


@pytest.mark.parametrize("shard", [(4, 64, 64), None])
def test_every_flipped_bit_is_found(tmp_path, shard):
    """200 of 200; a store without checksums returns wrong voxels for all of them."""
    array = _image(str(tmp_path), shape=(4, 64, 64), chunk=(2, 32, 32), shard=shard)
    unit = volume.write_unit(array)
    data = _noise(unit)
    volume.write(array, Box((0, 0, 0), unit, mip=0), data)
    path = tmp_path / "aligned/0/c/0/0/0"
    good = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(200):
        bad = bytearray(good)
        bad[random.integers(len(bad))] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        with pytest.raises(CorruptError, match=r"aligned/0, region \[0:.*is damaged"):
            volume.read(array, Box((0, 0, 0), unit, mip=0))
    path.write_bytes(good)
    got = volume.read(array, Box((0, 0, 0), unit, mip=0))
    np.testing.assert_array_equal(got, data)


@pytest.mark.parametrize("length", [0, 1, 100, 515, 516, 600, -1])
def test_every_truncation_is_found(root, length):
    array = _image(root)
    unit = Box((0, 0, 0), (4, 64, 64), mip=0)
    volume.write(array, unit, _noise((4, 64, 64)))
    shard = store.join(root, "aligned/0/c/0/0/0")
    store.replace_bytes(shard, store.read_bytes(shard)[:length])
    with pytest.raises(CorruptError, match=r"aligned/0, region"):
        volume.read(array, unit)
    with pytest.raises(CorruptError, match=r"aligned/0, region"):
        volume.read(array, Box((0, 0, 0), (1, 5, 5), mip=0))


def test_an_array_is_created_once(root):
    _image(root, attributes={"mip": 0})
    _image(root, attributes={"mip": 0})
    for changes, named in [
        ({"shape": (6, 100, 70)}, "shape"),
        ({"dtype": np.float32}, "data_type"),
        ({"shard": None}, "chunk_grid"),
        ({"fill_value": 1}, "fill_value"),
        ({"attributes": {"mip": 1}}, "attributes"),
    ]:
        with pytest.raises(ConflictError, match=rf"aligned/0 exists as another array.*{named}"):
            _image(root, **{"attributes": {"mip": 0}, **changes})


def test_an_array_of_nan_fill_is_created_once(tmp_path):
    for _ in range(2):
        volume.create_array(
            str(tmp_path), "f", shape=(4,), chunk=(4,), dtype=np.float32,
            fill_value=float("nan"), dimension_names=("i",),
        )  # fmt: skip


def test_a_unit_is_written_once(root):
    array = _image(root)
    unit = Box((4, 64, 64), (5, 100, 70), mip=0)  # clipped at all edges
    first = volume.write(array, unit, _noise(unit.shape))
    assert volume.write(array, unit, _noise(unit.shape)) == first
    with pytest.raises(ConflictError, match="exists with other content"):
        volume.write(array, unit, _noise(unit.shape, seed=1))
    np.testing.assert_array_equal(volume.read(array, unit), _noise(unit.shape))


def test_writing_does_not_look_at_what_is_there(tmp_path):
    """A damaged shard is not merged into the new one at the array's edge; it is a conflict."""
    array = _image(str(tmp_path))
    unit = Box((4, 64, 64), (5, 100, 70), mip=0)
    volume.write(array, unit, _noise(unit.shape))
    path = tmp_path / "aligned/0/c/1/1/1"
    good = path.read_bytes()
    path.write_bytes(good[:100])
    with pytest.raises(ConflictError):
        volume.write(array, unit, _noise(unit.shape))
    path.unlink()
    volume.write(array, unit, _noise(unit.shape))
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        ((0, 0, 0), (4, 64, 63)),
        ((0, 0, 1), (4, 64, 64)),
        ((0, 0, 0), (2, 64, 64)),
        ((0, 0, 0), (4, 99, 64)),
        ((0, 0, 0), (4, 64, 0)),
    ],
)
def test_part_of_a_shard_is_refused(tmp_path, start, stop):
    array = _image(str(tmp_path))
    box = Box(start, stop, mip=0)
    with pytest.raises(ChunkGridError, match=r"aligned/0.*not a whole number of units"):
        volume.write(array, box, np.zeros(box.shape, np.uint8))
    assert store.list_names(f"{tmp_path}/aligned/0") == ["zarr.json"]


def test_data_must_fit_its_place(tmp_path):
    array = _image(str(tmp_path))
    box = Box((0, 0, 0), (4, 64, 64), mip=0)
    with pytest.raises(MismatchError, match=r"takes uint8 \(4, 64, 64\), got float64"):
        volume.write(array, box, np.zeros(box.shape))
    with pytest.raises(MismatchError, match=r"got uint8 \(4, 64, 1\)"):
        volume.write(array, box, np.zeros((4, 64, 1), np.uint8))
    with pytest.raises(MismatchError, match="does not lie inside"):
        volume.write(array, Box((0, 0, 0), (8, 64, 64), mip=0), np.zeros((8, 64, 64), np.uint8))


def test_a_shard_that_is_not_whole_chunks_names_the_setting(tmp_path):
    with pytest.raises(ChunkGridError, match=r"aligned/0: shard.*section `volume`"):
        _image(str(tmp_path), shape=(40, 400, 400), shard=(4, 60, 64))


def test_small_arrays_get_small_shards(tmp_path):
    array = _image(str(tmp_path), shape=(30, 600, 300), chunk=(1, 512, 512), shard=(1, 4096, 4096))
    assert volume.write_unit(array) == (1, 1024, 300)
    single = _image(str(tmp_path), "b", shape=(3, 9, 9), chunk=(1, 64, 64), shard=(1, 128, 128))
    assert single.shards is None
    assert volume.write_unit(single) == (1, 9, 9)


def test_an_absent_array_is_named(root):
    with pytest.raises(MissingError, match=r"no array 'fields'.*has not run"):
        volume.open_array(root, "fields")
    store.create_bytes(store.join(root, "broken/zarr.json"), b'{"node_type": "array", "shape": 1}')
    with pytest.raises(CorruptError, match="does not describe an array"):
        volume.open_array(root, "broken")


def test_an_array_can_be_sent_to_a_worker(root):
    array, data = _filled(root)
    arrived = pickle.loads(pickle.dumps(array))
    box = Box((0, 0, 0), (4, 64, 64), mip=0)
    np.testing.assert_array_equal(volume.read(arrived, box), data[box.slices])
    volume.write(arrived, box, data[box.slices])
    with pytest.raises(ConflictError):
        volume.write(arrived, box, 255 - data[box.slices])


def test_zarr_python_reads_it(tmp_path):
    _, data = _filled(str(tmp_path))
    plain = zarr.open_array(f"{tmp_path}/aligned/0", mode="r")
    np.testing.assert_array_equal(plain[:], data)
    assert plain.metadata.dimension_names == ("z", "y", "x")


@pytest.mark.parametrize("shard", [SHARD, None])
def test_tensorstore_reads_it(tmp_path, shard):
    _, data = _filled(str(tmp_path), shard=shard)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{tmp_path}/aligned/0/"},
    }
    dataset = tensorstore.open(spec, read=True).result()
    np.testing.assert_array_equal(dataset.read().result(), data)
    assert dataset.domain.labels == ("z", "y", "x")
    assert dataset.chunk_layout.write_chunk.shape == volume.write_unit(
        volume.open_array(str(tmp_path), "aligned/0")
    )


def test_tensorstore_reads_it_from_s3(s3_root, s3_endpoint):
    _, data = _filled(s3_root)
    bucket, _, key = s3_root.removeprefix("s3://").partition("/")
    spec = {
        "driver": "zarr3",
        "kvstore": {
            "driver": "s3", "bucket": bucket, "path": f"{key}/aligned/0/",
            "endpoint": s3_endpoint, "aws_region": "us-east-1",
            "aws_credentials": {"type": "environment"},
        },
    }  # fmt: skip
    dataset = tensorstore.open(spec, read=True).result()
    np.testing.assert_array_equal(dataset.read().result(), data)


def test_foreign_arrays_may_have_absent_chunks_and_are_not_written(tmp_path):
    theirs = zarr.create_array(
        f"{tmp_path}/theirs", shape=(4, 8, 8), chunks=(2, 8, 8), dtype="uint8", fill_value=7
    )
    theirs[:2] = 1
    array = volume.open_foreign(str(tmp_path / "theirs"))
    assert (volume.read(array, Box((2, 0, 0), (4, 8, 8), mip=0)) == 7).all()
    with pytest.raises(StorageError, match="reading only"):
        volume.write(array, Box((2, 0, 0), (4, 8, 8), mip=0), np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(MissingError, match="not a zarr array"):
        volume.open_foreign(str(tmp_path / "none"))


# Images -----------------------------------------------------------------------------------------


def _pyramid(root: str):
    return volume.create_image(
        f"{root}/aligned", shape=(3, 101, 67), chunk=(1, 16, 16), shard=(1, 64, 64),
        resolution_nm=(40.0, 4.0, 4.5), mips=3, name="aligned",
    )  # fmt: skip


def test_a_pyramid_validates_as_ome_zarr(tmp_path):
    arrays = _pyramid(str(tmp_path))
    assert [a.shape for a in arrays] == [(3, 101, 67), (3, 51, 34), (3, 26, 17)]
    image = Image.from_zarr(zarr.open_group(f"{tmp_path}/aligned", mode="r"))
    levels = image.ome_attributes.multiscales[0].datasets
    assert [d.path for d in levels] == ["0", "1", "2"]
    assert [d.coordinateTransformations[0].scale for d in levels] == [
        [40.0, 4.0, 4.5],
        [40.0, 8.0, 9.0],
        [40.0, 16.0, 18.0],
    ]


def test_shards_of_the_first_levels_can_show_the_tissue_of_one_of_mip_0(tmp_path):
    arrays = volume.create_image(
        str(tmp_path), shape=(3, 300, 420), chunk=(1, 16, 16), shard=(1, 128, 128),
        resolution_nm=(40.0, 4.0, 4.5), mips=4, name="aligned", halved=2,
    )  # fmt: skip
    assert [a.shards for a in arrays] == [(1, 128, 128), (1, 64, 64), (1, 32, 32), (1, 48, 64)]
    for box in tile(arrays[0].shape, (1, 128, 128), mip=0):
        for array in arrays[1:3]:
            box = box.coarser()
            volume.write(array, box, np.ones(box.shape, np.uint8))
    assert all(array[:].all() for array in arrays[1:3])


def test_levels_lie_on_each_other(tmp_path):
    """The centre of a coarse pixel is the mean of the centres of the pixels that it averages."""
    _pyramid(str(tmp_path))
    ome = store.read_json(f"{tmp_path}/aligned/zarr.json")["attributes"]["ome"]
    place = {}
    for mip, dataset in enumerate(ome["multiscales"][0]["datasets"]):
        scale, shift = (t[t["type"]] for t in dataset["coordinateTransformations"])
        place[mip] = lambda i, scale=scale, shift=shift: scale[1] * i + shift[1]
    for i in range(5):
        assert place[1](i) == pytest.approx(np.mean([place[0](2 * i), place[0](2 * i + 1)]))
        assert place[2](i) == pytest.approx(np.mean([place[0](4 * i + k) for k in range(4)]))


def test_a_pyramid_is_created_once(root):
    _pyramid(root)
    _pyramid(root)
    with pytest.raises(ConflictError):
        volume.create_image(
            f"{root}/aligned", shape=(3, 101, 67), chunk=(1, 16, 16), shard=(1, 64, 64),
            resolution_nm=(50.0, 4.0, 4.5), mips=3, name="aligned",
        )  # fmt: skip


def test_an_image_has_a_level(tmp_path):
    with pytest.raises(ChunkGridError, match="got mips=0"):
        volume.create_image(
            str(tmp_path), shape=(3, 101, 67), chunk=(1, 16, 16), shard=None,
            resolution_nm=(50.0, 4.0, 4.5), mips=0, name="none",
        )  # fmt: skip
    assert store.list_names(str(tmp_path)) == []


def test_a_root_group_may_list_levels_far_below(tmp_path):
    _pyramid(f"{tmp_path}/runs/abc")
    attributes = ome_attributes(
        name="v", resolution_nm=(40, 4, 4.5), mips=3, prefix="runs/abc/aligned",
        extra={"petalign": {"run": "abc"}},
    )  # fmt: skip
    write_ome_group(str(tmp_path), attributes)
    write_ome_group(str(tmp_path), attributes)
    group = zarr.open_group(str(tmp_path), mode="r")
    assert group["runs/abc/aligned/2"].shape == (3, 26, 17)
    image = Image.from_zarr(group)
    assert image.ome_attributes.multiscales[0].datasets[2].path == "runs/abc/aligned/2"


@given(st.tuples(*[st.integers(1, 5000)] * 3), st.integers(0, 8))
def test_each_level_is_half_of_the_one_before(shape, mip):
    fine, coarse = level_shape(shape, mip), level_shape(shape, mip + 1)
    assert coarse == (fine[0], (fine[1] + 1) // 2, (fine[2] + 1) // 2)


def test_shards_hold_the_chunks_that_zarr_alone_would_write(tmp_path):
    """The faster pipeline inside a shard changes no chunk, also at the array's edge."""
    shape, chunk, shard = (5, 100, 200), (2, 32, 32), (4, 64, 64)
    data = np.random.default_rng(0).integers(0, 200, shape, dtype=np.uint8)
    ours = volume.create_array(
        tmp_path.as_uri(), "ours", shape=shape, chunk=chunk, shard=shard, dtype=np.uint8,
        fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    volume.write(ours, Box((0, 0, 0), shape, mip=0), data)
    (tmp_path / "zarr").mkdir()
    (tmp_path / "zarr/zarr.json").write_bytes((tmp_path / "ours/zarr.json").read_bytes())
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(str(tmp_path / "zarr"), mode="r+")[:] = data
    written = sorted(p.relative_to(tmp_path / "zarr") for p in tmp_path.glob("zarr/c/**/?"))
    assert len([p for p in written if (tmp_path / "zarr" / p).is_file()]) == 16
    for path in written:
        if (tmp_path / "zarr" / path).is_file():
            assert _chunks(tmp_path / "ours" / path) == _chunks(tmp_path / "zarr" / path)
    assert (zarr.open_array(str(tmp_path / "ours"), mode="r")[:] == data).all()


def _chunks(shard: Path) -> list[bytes | None]:
    """Return what the index of a shard of 2 x 2 x 2 chunks names, in its order."""
    data = shard.read_bytes()
    index = np.frombuffer(data[-(16 * 8 + 4) : -4], "<u8").reshape(-1, 2).tolist()
    return [None if offset == 2**64 - 1 else data[offset : offset + n] for offset, n in index]


@pytest.mark.parametrize("high", [256, pytest.param(200, marks=pytest.mark.slow)])
def test_the_end_of_a_shard_tells_it_from_others_even_in_noise(tmp_path, high):
    """Noise of all 256 values does not compress: its chunks have one length."""
    array = volume.create_array(
        tmp_path.as_uri(), "noise", shape=(400, 64, 64), chunk=(1, 16, 16), shard=(1, 64, 64),
        dtype=np.uint8, fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    voxels = np.random.default_rng(1).integers(0, high, array.shape, dtype=np.uint8)
    volume.write(array, Box((0, 0, 0), array.shape, mip=0), voxels)
    ends = {path.read_bytes()[-4:] for path in tmp_path.glob("noise/c/*/0/0")}
    assert len(ends) == 400
    assert (zarr.open_array(str(tmp_path / "noise"), mode="r")[:] == voxels).all()
