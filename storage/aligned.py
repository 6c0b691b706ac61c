"""Open the aligned volume for analysis: lazy, labelled in nanometres, one consistent run."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray
from numpy.typing import NDArray

from storage import store
from storage.cache import BlockCache
from storage.cache.arrays import cached
from storage.commit.trust import trust
from storage.errors import MissingError
from storage.ome import AXES, read_level
from storage.publish import POINTER, find_version, read_pointer
from storage.volume import Array, open_array, read_region, write_unit

_BLOCK_BYTES = 64 * 2**20


def open_aligned(
    uri: str | Path, *, at: int | str | None = None, mip: int = 0, cache: BlockCache | None = None
) -> xarray.DataArray:
    """Open an aligned volume; voxels are read when they are needed, and checked.

    Parameters
    ----------
    uri : str or Path
        Of a volume, which opens the run that is published now and stays with it, or of a run.
    at : int or str, optional
        A version instead of the present one: its epoch, or the run's key or how that begins. See
        `storage.publish.versions`.
    mip : int
        Level of the pyramid; each halves y and x.
    cache : BlockCache, optional
        From `storage.cache.open_cache`: what was read stays on the local disk, for all processes.

    Returns
    -------
    DataArray
        uint8 (z, y, x) over dask, 0 where there is no data. Coordinates are the voxels' centres in
        nm, so ``volume.sel(z=1200, method="nearest")`` is the section at 1.2 um, and levels of the
        pyramid lie on each other. Attributes: `run`, `mip`, `resolution_nm`.

    Raises
    ------
    MissingError
        If nothing was published, `at` is no version, or the run has no aligned volume. Also when
        voxels are read that were never written; nothing is filled in.
    CorruptError
        If the run's metadata are not what it was published with. When voxels are read whose
        checksum does not hold, or from a shard that belongs elsewhere.

    Notes
    -----
    The mean over z of the first 4 by 4 um::

        volume = open_aligned("s3://petalign/demo")
        volume.sel(y=slice(0, 4000), x=slice(0, 4000)).mean("z").compute()
    """
    run_uri, root = _resolve(store.normalise_uri(uri), at)
    held = trust(run_uri, root)
    group = store.join(run_uri, "aligned")
    path, steps_nm, first_nm = read_level(group, mip, held=held if held.is_sealed else None)
    array = open_array(run_uri, f"aligned/{path}", held=held if held.is_sealed else None)
    if cache is not None:
        array = cached(array, cache)
    blocks = dask.array.from_array(
        Voxels(array), chunks=_blocks(array), name=f"aligned-{run_uri}-{mip}", asarray=False
    )
    coordinates = {
        axis: (axis, first + step * np.arange(n), {"units": "nm", "long_name": f"{axis} position"})
        for axis, first, step, n in zip(AXES, first_nm, steps_nm, array.shape, strict=True)
    }
    return xarray.DataArray(
        blocks,
        coords=coordinates,
        dims=AXES,
        name="aligned",
        attrs={"run": run_uri.rpartition("/")[2], "mip": mip, "resolution_nm": steps_nm},
    )


def _resolve(uri: str, at: int | str | None) -> tuple[str, str | None]:
    """Return the URI of the run that `uri` means, and its root if it was published."""
    version = read_pointer(uri) if at is None else find_version(uri, at)
    if version is not None:
        return store.join(uri, "runs", version.run), version.root
    if store.exists(store.join(uri, "aligned", "zarr.json")):
        return uri, None
    raise MissingError(
        f"{uri} has no published run: there is neither {POINTER} (of a volume) nor aligned/ (of a "
        "run). Run the pipeline up to its stage 'publish', or give the URI of a run"
    )


def _blocks(array: Array) -> tuple[int, ...]:
    """Return the shape of dask's blocks: a shard, halved along y and x until it is small enough.

    Blocks stay multiples of the chunks, so that no chunk is decoded twice.
    """
    block = list(write_unit(array))
    while prod(block) * array.dtype.itemsize > _BLOCK_BYTES:
        divisible = [axis for axis in (0, 1, 2) if block[axis] % (2 * array.chunks[axis]) == 0]
        if not divisible:
            break
        widest = max(divisible, key=lambda axis: block[axis])
        block[widest] //= 2
    return tuple(block)


@dataclass(frozen=True)
class Voxels:
    """What dask needs of an array; every read goes through the checks of `storage.volume`."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels."""
        return np.dtype(self.array.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a selection: dask fuses slices, steps and single positions into one index."""
        region: list[slice] = []
        then: list[slice | int] = []
        for item, n in zip(index, self.shape, strict=True):
            if isinstance(item, slice):
                wanted = range(n)[item]
                low, high = sorted((wanted[0], wanted[-1])) if wanted else (0, -1)
                region.append(slice(low, high + 1))
                then.append(slice(None, None, wanted.step))
            else:
                place = range(n)[item]
                region.append(slice(place, place + 1))
                then.append(0)
        return read_region(self.array, tuple(region))[tuple(then)]
