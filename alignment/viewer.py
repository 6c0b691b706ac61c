"""Look at an aligned volume in Neuroglancer, without the network: the wheel brings the client.

The browser reads the volume itself, over HTTP and in ranges of shards. A volume on S3 is read from
its server, which must allow anonymous GET and CORS, as the embedded platform's does. A volume in a
folder is served by `alignment.folder_server`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from alignment.errors import ConfigError
from alignment.folder_server import LOOPBACK, FolderServer
from storage import ome, publish, store, uri, volume
from storage.errors import MismatchError, MissingError
from storage.grid import Box

_PANE_PX = (400, 660)
"""Height and width that one of four panes has on a laptop: a new view shows whole sections."""


@dataclass(frozen=True)
class Layer:
    """One OME-Zarr image as the viewer needs it."""

    name: str
    url: str
    """http(s) or s3 URL of the group, without the ``zarr3://``."""
    shape: tuple[int, ...]
    """(z, y, x), px at mip 0."""
    resolution_nm: tuple[float, ...]
    """Voxel size (z, y, x) at mip 0."""
    contrast: tuple[int, int]
    """Grey values shown as black and white."""


def contrast_range(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the grey values to show as black and white: percentiles 0.5 and 99.5 of the tissue.

    0 means "no data" and does not count.

    >>> contrast_range(np.array([0, 0, 0, 100, 180], np.uint8))
    (100, 180)
    """
    tissue = image[image > 0]
    if not tissue.size:
        return 0, 255
    low, high = (int(p) for p in np.rint(np.percentile(tissue, (0.5, 99.5))))
    return low, max(high, low + 1)


def viewer_state(
    aligned: Layer,
    unaligned: Layer | None = None,
    *,
    position: tuple[float, float, float] | None = None,
) -> dict[str, Any]:
    """Return the state of a Neuroglancer that shows a volume, in its JSON.

    With `unaligned`, before stands on the left and after on the right, each as a section above and
    as a cut across the sections below, all moving together. Otherwise the section is on the left
    and the two cuts are on the right.

    Parameters
    ----------
    aligned : Layer
        The result.
    unaligned : Layer, optional
        The sections as they came, in their own frame: they share z with the result, and y and x
        only roughly.
    position : (z, y, x), optional
        Where to look, px at mip 0; the middle by default. The viewer shows the same numbers: as
        OME-Zarr says, the centre of the first voxel is its origin.
    """
    layers = [layer for layer in (unaligned, aligned) if layer is not None]
    nz, ny, nx = aligned.shape
    z, y, x = position or (nz // 2, (ny - 1) / 2, (nx - 1) / 2)
    # Neuroglancer calls the first two dimensions "xy": the order is x, y, z, and never ours.
    dimensions = {
        axis: [nm * 1e-9, "m"]
        for axis, nm in zip("xyz", reversed(aligned.resolution_nm), strict=True)
    }
    return {
        "title": f"petalign: {aligned.name}",
        "dimensions": dimensions,
        "position": [x, y, z],
        "crossSectionScale": max(ny / _PANE_PX[0], nx / _PANE_PX[1]),
        "crossSectionBackgroundColor": "#2b2f33",  # not black: black is tissue, or no data
        "showAxisLines": False,
        "showDefaultAnnotations": False,
        "layers": [_image_layer(layer) for layer in layers],
        "selectedLayer": {"visible": False},
        "layout": _compare(layers) if unaligned else _three_planes(aligned),
    }


def _image_layer(layer: Layer) -> dict[str, Any]:
    low, high = layer.contrast
    return {
        "type": "image",
        "name": layer.name,
        "source": f"zarr3://{layer.url}/",
        "shader": "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }\n",
        "shaderControls": {"normalized": {"range": [low, high], "window": [0, 255]}},
    }


def _pane(layer: Layer, plane: str) -> dict[str, Any]:
    return {"type": "viewer", "layers": [layer.name], "layout": plane}


def _compare(layers: list[Layer]) -> dict[str, Any]:
    columns = [
        {"type": "column", "children": [_pane(layer, "xy"), _pane(layer, "xz")]} for layer in layers
    ]
    return {"type": "row", "children": columns}


def _three_planes(layer: Layer) -> dict[str, Any]:
    cuts = {"type": "column", "children": [_pane(layer, "xz"), _pane(layer, "yz")]}
    return {"type": "row", "children": [_pane(layer, "xy"), cuts]}


def data_url(volume_uri: str, *, environment: Mapping[str, str]) -> str:
    """Return where a browser finds an S3 volume.

    Parameters
    ----------
    volume_uri : str
        ``s3://bucket/key``.
    environment : mapping of str to str
        Of it, only AWS_ENDPOINT_URL counts: the server that the bucket lies on. Without it the
        bucket is Amazon's, and the viewer's own S3 reader finds it.

    >>> data_url("s3://petalign/demo", environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"})
    'http://127.0.0.1:8333/petalign/demo'
    """
    bucket, key = uri.bucket_and_key(volume_uri)
    path = quote(f"{bucket}/{key}".rstrip("/"))
    endpoint = environment.get("AWS_ENDPOINT_URL", "").rstrip("/")
    return f"{endpoint}/{path}" if endpoint else f"s3://{path}"


@contextmanager
def serve(
    volume_uri: str,
    *,
    environment: Mapping[str, str],
    port: int = 0,
    position: tuple[float, float, float] | None = None,
) -> Iterator[str]:
    """Run a Neuroglancer that shows an aligned volume, and yield its URL until the block ends.

    Parameters
    ----------
    volume_uri : str
        A volume (its published run is shown) or a run, beside the unaligned sections; or the group
        of any other OME-Zarr pyramid that this project wrote, alone.
    environment : mapping of str to str
        The process's, for the S3 server; see `data_url`.
    port : int
        Of the viewer on the loopback address; 0 takes a free one.
    position : (z, y, x), optional
        Where to look, px at mip 0; the middle by default.

    Raises
    ------
    MissingError
        If nothing is published at `volume_uri`.
    ConfigError
        If neuroglancer is not installed.
    """
    try:
        import neuroglancer
    except ImportError:
        raise ConfigError(
            "the viewer needs the package neuroglancer; install it: pip install 'petalign[viewer]'"
        ) from None
    root = store.normalise_uri(volume_uri)
    with _reachable(root, environment=environment) as url:
        state = viewer_state(*_layers(root, url), position=position)
        neuroglancer.set_server_bind_address(LOOPBACK, bind_port=port)
        try:
            viewer = neuroglancer.Viewer()
            viewer.set_state(state)
            yield viewer.get_viewer_url()
        finally:
            neuroglancer.stop()


@contextmanager
def _reachable(root: str, *, environment: Mapping[str, str]) -> Iterator[str]:
    folder = uri.local_path(root)
    if folder is None:
        yield data_url(root, environment=environment)
        return
    if not folder.is_dir():
        raise MissingError(f"{root} does not exist; expected the folder of an aligned volume")
    with FolderServer(folder) as server:
        yield server.url


def _layers(root: str, url: str) -> tuple[Layer, Layer | None]:
    """Return the aligned layer and, of a volume or a run, its unaligned sections."""
    pointer = publish.read_pointer(root)
    if pointer is not None:
        aligned, sections = "", f"runs/{pointer.run}/sections"
    elif store.exists(store.join(root, "aligned", "zarr.json")):
        aligned, sections = "aligned", "sections"
    else:
        return read_layer(root, url, "", name="aligned"), None
    return (
        read_layer(root, url, aligned, name="aligned"),
        read_layer(root, url, sections, name="unaligned"),
    )


def read_layer(root: str, url: str, below: str, *, name: str) -> Layer:
    """Return the layer of the OME-Zarr group `below` a root that a browser finds at `url`."""
    group = store.join(root, below) if below else root
    paths: list[str] = []
    with suppress(MismatchError):  # raised by the first level that does not exist
        paths.extend(ome.read_level(group, mip)[0] for mip in count())
    return Layer(
        name=name,
        url=f"{url}/{below}".rstrip("/"),
        shape=volume.open_array(group, paths[0]).shape,
        resolution_nm=ome.read_level(group, 0)[1],
        contrast=contrast_range(_overview(volume.open_array(group, paths[-1]), len(paths) - 1)),
    )


def _overview(array: volume.Array, mip: int) -> NDArray[np.uint8]:
    """Return some sections of an image, spread over the stack."""
    nz, ny, nx = array.shape
    picks = sorted({(2 * k + 1) * nz // 10 for k in range(5)})
    boxes = [Box((z, 0, 0), (z + 1, ny, nx), mip) for z in picks]
    return np.concatenate([volume.read(array, box) for box in boxes])
