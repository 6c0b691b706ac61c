"""Exports, read back by other programs; resumed, refused, and never silent about damage."""

import json
import os

import cv2
import numpy as np
import pytest
import tifffile

from storage import store, volume
from storage.errors import ConflictError, CorruptError, MismatchError, MissingError, UriError
from storage.grid import tile
from storage.publish import publish
from storage.sections import open_source
from storage.targets import precomputed, tiff
from storage.targets.neuroglancer import check_public_url, neuroglancer_link
from storage.targets.origin import CLAIM, find_origin
from storage.targets.precomputed import export_precomputed
from storage.targets.tiff import export_tiff
from storage.targets.tiffheader import tiff_layout
from storage.uri import local_path

SHAPE = (21, 700, 530)
RESOLUTION = (40.0, 4.0, 5.5)


def write_run(root, key, seed=0, shape=SHAPE):
    """Write a run of two levels and return their voxels."""
    levels = volume.create_image(
        store.join(root, "runs", key, "aligned"), shape=shape, chunk=(4, 64, 64),
        shard=(8, 512, 512), resolution_nm=RESOLUTION, mips=2, name=key,
    )  # fmt: skip
    random = np.random.default_rng(seed)
    images = []
    for array in levels:
        image = random.integers(0, 256, array.shape).astype(np.uint8)
        image[:, :260, :260] = 0  # a black chunk is written like the others
        for box in tile(array.shape, volume.write_unit(array), mip=0):
            volume.write(array, box, image[box.slices])
        images.append(image)
    return images


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A volume with one published run, and the voxels of its levels."""
    root = f"file://{tmp_path_factory.mktemp('volume')}/out.zarr"
    images = write_run(root, "a1")
    publish(root, "a1")
    return root, images


def cloud_volume(uri, mip):
    """Open a precomputed volume as its own program does."""
    cloudvolume = pytest.importorskip("cloudvolume")
    path, secrets = uri, {}
    if uri.startswith("s3:"):
        from cloudfiles.paths import add_alias

        add_alias("loopback", f"s3://{os.environ['AWS_ENDPOINT_URL']}/")
        path = uri.replace("s3://", "loopback://")
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        secrets = {"secrets": {name: os.environ[name] for name in names}}
    with pytest.MonkeyPatch.context() as patch:
        # cloud-files 6 takes keys in the environment for temporary ones, and misses their token.
        patch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        return cloudvolume.CloudVolume(
            f"precomputed://{path}", mip=mip, fill_missing=False, progress=False, **secrets
        )


def test_precomputed_is_read_back_by_cloud_volume(published, root):
    source, images = published
    n = export_precomputed(find_origin(source), store.join(root, "pre"))
    assert n == 2 * 3 * 3 + 2 * 2 * 2
    for mip, image in enumerate(images):
        back = cloud_volume(store.join(root, "pre"), mip)
        np.testing.assert_array_equal(np.asarray(back[:])[..., 0].transpose(2, 1, 0), image)
        assert back.resolution.tolist() == [5.5 * 2**mip, 4.0 * 2**mip, 40.0]


def test_precomputed_is_a_source_again(published, root):
    source, images = published
    export_precomputed(find_origin(source), store.join(root, "pre"))
    again = open_source(store.join(root, "pre"))
    assert (again.shape, again.resolution_nm) == (SHAPE, RESOLUTION)
    np.testing.assert_array_equal(again.read_rows(20, 100, 700), images[0][20, 100:700])


def test_precomputed_is_read_back_by_tensorstore(published, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    source, images = published
    export_precomputed(find_origin(source), str(tmp_path / "pre"), mips=(1,))
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{tmp_path}/pre/"}
    back = tensorstore.open(spec).result().read().result()
    np.testing.assert_array_equal(back[..., 0].transpose(2, 1, 0), images[1])


def test_an_export_says_which_version_it_is_of(published, tmp_path):
    origin = find_origin(published[0])
    export_precomputed(origin, str(tmp_path / "pre"), mips=(1,))
    said = json.loads((tmp_path / "pre/provenance").read_text())["processing"][0]["method"]
    assert (said["run"], said["epoch"], said["root"]) == ("a1", 1, origin.root)
    assert origin.root
    export_tiff(origin, str(tmp_path / "tiff"), z=(3, 4), mip=1)
    with tifffile.TiffFile(tmp_path / "tiff/z000003.tif") as file:
        said = json.loads(file.pages[0].description)["petalign"]
    assert said["from"] == {"run": "a1", "epoch": 1, "root": origin.root}
    assert (said["z"], said["mip"]) == (3, 1)


def test_an_older_version_can_be_exported(tmp_path):
    root = f"file://{tmp_path}/out.zarr"
    images = {key: write_run(root, key, seed, (3, 80, 70)) for seed, key in enumerate(("b1", "c2"))}
    for key in images:
        publish(root, key)
    export_tiff(find_origin(root, at=1), str(tmp_path / "old"), z=(0, 3))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "old/z000002.tif"), images["b1"][0][2])
    export_tiff(find_origin(root), str(tmp_path / "new"), z=(2, 3))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new/z000002.tif"), images["c2"][0][2])


def test_a_stopped_export_is_no_volume_and_goes_on(published, tmp_path, monkeypatch):
    origin = find_origin(published[0])
    create, made = store.create_bytes, []

    def stop_after_five(uri, data):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(uri)
        create(uri, data)

    monkeypatch.setattr(precomputed.store, "create_bytes", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        export_precomputed(origin, str(tmp_path / "pre"), workers=1)
    assert not (tmp_path / "pre/info").exists()
    first = set(made[1:])  # without the claim
    monkeypatch.setattr(
        precomputed.store, "create_bytes", lambda uri, data: (made.append(uri), create(uri, data))
    )
    export_precomputed(origin, str(tmp_path / "pre"))
    assert not first & set(made[5:])
    back = cloud_volume(f"file://{tmp_path}/pre", 0)
    np.testing.assert_array_equal(np.asarray(back[:])[..., 0].transpose(2, 1, 0), published[1][0])


def test_nothing_else_is_overwritten(published, tmp_path):
    origin = find_origin(published[0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    for write in (
        lambda dest: export_precomputed(origin, dest),
        lambda dest: export_tiff(origin, dest, z=(0, 1)),
    ):
        with pytest.raises(ConflictError, match=r"thesis\.txt"):
            write(str(tmp_path / "mine"))
    export_tiff(origin, str(tmp_path / "tiff"), z=(0, 1))
    with pytest.raises(ConflictError, match="z differ"):
        export_tiff(origin, str(tmp_path / "tiff"), z=(0, 2))
    with pytest.raises(ConflictError, match="to"):
        export_precomputed(origin, str(tmp_path / "tiff"))
    assert sorted(p.name for p in (tmp_path / "tiff").iterdir()) == [CLAIM, "z000000.tif"]


def test_damage_is_an_error_and_leaves_no_volume(tmp_path):
    root = f"file://{tmp_path}/out.zarr"
    write_run(root, "d4", shape=(5, 200, 300))
    publish(root, "d4")
    path = local_path(store.join(root, "runs/d4/aligned/0/c/0/0/0"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError):
        export_precomputed(find_origin(root), str(tmp_path / "pre"))
    with pytest.raises(CorruptError):
        export_tiff(find_origin(root), str(tmp_path / "tiff"), z=(0, 5))
    path.unlink()
    with pytest.raises(MissingError):
        export_precomputed(find_origin(root), str(tmp_path / "pre"))
    assert not (tmp_path / "pre/info").exists()
    assert not list((tmp_path / "tiff").glob("*.tif"))


@pytest.mark.parametrize("box", [None, ((13, 666), (100, 515)), ((0, 512), (0, 512))])
def test_tiff_files_hold_the_sections(published, tmp_path, box):
    source, (image, _) = published
    seen = []
    names = export_tiff(
        find_origin(source), str(tmp_path / "t"), z=(2, 11), box=box, tell=lambda *a: seen.append(a)
    )
    assert names == [f"z{z:06d}.tif" for z in range(2, 11)]
    assert seen[-1] == ("sections", 9, 9)
    (y0, y1), (x0, x1) = box or ((0, 700), (0, 530))
    for z in range(2, 11):
        path = tmp_path / f"t/z{z:06d}.tif"
        np.testing.assert_array_equal(tifffile.imread(path), image[z, y0:y1, x0:x1])
        other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # libtiff
        np.testing.assert_array_equal(other, image[z, y0:y1, x0:x1])
    with tifffile.TiffFile(tmp_path / "t/z000002.tif") as file:
        page = file.pages[0]
        assert page.is_tiled
        assert not file.is_bigtiff
        assert page.tags["ResolutionUnit"].value == 3
        per_cm = [n / d for n, d in (page.tags[f"{a}Resolution"].value for a in "YX")]
        assert [1e7 / n for n in per_cm] == pytest.approx(RESOLUTION[1:], rel=1e-6)


def test_tiff_files_that_are_there_are_not_written_again(published, tmp_path, monkeypatch):
    origin = find_origin(published[0])
    export_tiff(origin, str(tmp_path / "t"), z=(0, 6), mip=1)
    (tmp_path / "t/z000004.tif").unlink()
    read, seen = tiff.read, []
    monkeypatch.setattr(tiff, "read", lambda array, box: seen.append(box) or read(array, box))
    export_tiff(origin, str(tmp_path / "t"), z=(0, 6), mip=1)
    assert {(box.start[0], box.stop[0]) for box in seen} == {(4, 5)}
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "t/z000004.tif"), published[1][1][4])


def test_a_range_beyond_the_volume_names_what_there_is(published, tmp_path):
    with pytest.raises(MismatchError, match="21 sections of 700 x 530"):
        export_tiff(find_origin(published[0]), str(tmp_path / "t"), z=(0, 22))
    with pytest.raises(UriError, match="folder on a file system"):
        export_tiff(find_origin(published[0]), "s3://petalign/t", z=(0, 1))
    assert not (tmp_path / "t").exists()


def test_a_file_above_4_gb_is_a_bigtiff_and_reads_at_its_end(tmp_path):
    layout = tiff_layout((70_000, 70_000), 512, (4.0, 4.0), "huge")
    assert layout.file_bytes > 2**32
    path = tmp_path / "huge.tif"
    row, column = 69_999 // 512, 69_999 // 512
    with path.open("wb") as file:  # sparse: only the last tile takes place
        file.write(layout.header)
        file.seek(layout.offset(row, column))
        file.write(bytes(range(256)) * (512 * 512 // 256))
    assert path.stat().st_size == layout.file_bytes
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        page = file.pages[0]
        assert page.shape == (70_000, 70_000)
        assert page.dataoffsets[-1] == layout.offset(row, column)
    small = tiff_layout((60_000, 60_000), 512, (4.0, 4.0), "fits")
    assert small.header[:4] == b"II*\0"


def test_memory_for_a_tiff_does_not_grow_with_the_section(published, tmp_path, monkeypatch):
    largest = []
    read = tiff.read
    monkeypatch.setattr(
        tiff, "read", lambda array, box: largest.append(np.prod(box.shape)) or read(array, box)
    )
    monkeypatch.setattr(tiff, "_BLOCK_PX", 512)
    export_tiff(find_origin(published[0]), str(tmp_path / "t"), z=(0, 21))
    assert max(largest) <= 8 * 512 * 512


def test_what_is_not_published_is_named(tmp_path):
    with pytest.raises(MissingError, match="neither a volume with a published run"):
        find_origin(str(tmp_path))


def test_a_single_image_can_be_exported_too(published, tmp_path):
    source, images = published
    origin = find_origin(store.join(source, "runs/a1/aligned"))
    assert origin.run is None
    export_precomputed(origin, str(tmp_path / "pre"), mips=(1,))
    back = cloud_volume(f"file://{tmp_path}/pre", 0)
    np.testing.assert_array_equal(np.asarray(back[:])[..., 0].transpose(2, 1, 0), images[1])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@data.example/em",
        "https://data.example/em?X-Amz-Signature=hunter2",
        "https://data.example/em#hunter2",
        "ftp://data.example/hunter2",
        "data.example/hunter2",
    ],
)
def test_a_url_that_may_hold_credentials_is_refused_without_repeating_them(url):
    with pytest.raises(UriError) as refused:
        check_public_url(url)
    assert "hunter2" not in str(refused.value)


def test_a_link_opens_in_its_state():
    neuroglancer = pytest.importorskip("neuroglancer")
    state = {"position": [1, 2, 3.5], "title": "a b/ü&#?", "layers": []}
    parsed = neuroglancer.parse_url(neuroglancer_link(state))
    assert parsed.to_json()["position"] == [1, 2, 3.5]
    assert parsed.to_json()["title"] == state["title"]
