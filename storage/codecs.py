"""zarr's codecs, bounded: a chunk decodes to what its array allows for, or to an error.

`bounded` wraps the codecs of a zarr 3 array, inside its shards too, and `bounded_v2` those of a
zarr 2 array. Which codecs an array may have at all is decided by `storage.limits`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.core.codec_pipeline import FusedCodecPipeline

from storage.inflate import inflate
from storage.limits import COMPRESSORS, inflated_bytes

if TYPE_CHECKING:
    from zarr.abc.codec import CodecPipeline
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer


@dataclass(frozen=True)
class BoundedCodec(BytesBytesCodec):
    """A compressor of zarr 3 that decodes no more than its chunk can hold."""

    codec: Any
    name: str

    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        """Return the wrapped codec's entry in the metadata."""
        return dict(self.codec.to_dict())

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> BoundedCodec:
        """Fill in what the wrapped codec takes from the array."""
        return replace(self, codec=self.codec.evolve_from_array_spec(array_spec))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Ask the wrapped codec."""
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        itemsize = chunk_spec.dtype.to_native_dtype().itemsize
        limit = inflated_bytes(prod(chunk_spec.shape) * itemsize)
        prototype = chunk_spec.prototype.buffer

        def decode(data: Any) -> Any:
            plain = self.codec._decode_sync(prototype.from_bytes(data), chunk_spec)
            return plain.as_numpy_array()

        found = inflate(self.name, chunk_bytes.as_numpy_array(), limit, decode)
        return prototype.from_bytes(found)  # type: ignore[arg-type]

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def _encode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        encoded: Buffer | None = self.codec._encode_sync(chunk_bytes, chunk_spec)
        return encoded

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_bytes, chunk_spec)


class BoundedSharding(ShardingCodec):
    """zarr's sharding with two changes: see the two methods.

    The chunks of a shard go through zarr's fused pipeline, which decodes them in threads of its
    own without a coroutine for each. The store is asked by coroutines as before: in those threads
    no journal would be open (`storage.journal`).
    """

    @property
    def codec_pipeline(self) -> CodecPipeline:
        """Return the pipeline of the inner chunks, whatever zarr is configured to use."""
        return FusedCodecPipeline.from_codecs(self.codecs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Wrap the inner codecs again, which zarr sends as their metadata alone."""
        super().__setstate__(state)
        object.__setattr__(self, "codecs", tuple(bounded(codec) for codec in self.codecs))


def bounded(codec: Codec) -> Codec:
    """Return `codec`, wrapped if it is one that can enlarge."""
    if isinstance(codec, ShardingCodec):
        return BoundedSharding(
            chunk_shape=codec.chunk_shape,
            codecs=tuple(bounded(inner) for inner in codec.codecs),
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
            subchunk_write_order=codec.subchunk_write_order,
        )
    if isinstance(codec, BoundedCodec):
        return codec
    known = {ZstdCodec: "zstd", GzipCodec: "gzip", BloscCodec: "blosc"}
    name = known.get(type(codec)) or getattr(codec, "codec_name", "").removeprefix("numcodecs.")
    return BoundedCodec(codec, name) if name in COMPRESSORS else codec


@dataclass(frozen=True)
class BoundedNumcodec:
    """A compressor of zarr 2 that decodes no more than `limit` bytes."""

    codec: Any
    limit: int

    @property
    def codec_id(self) -> str:
        """The wrapped codec's name."""
        return str(self.codec.codec_id)

    def encode(self, buf: Any) -> Any:
        """Compress; nothing is bounded here."""
        return self.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decompress within the limit; `out` is not used by zarr."""
        return inflate(self.codec_id, np.ascontiguousarray(buf), self.limit, self.codec.decode)

    def get_config(self) -> Any:
        """Return the wrapped codec's entry in the metadata."""
        return self.codec.get_config()


def bounded_v2(codec: Any, limit: int) -> Any:
    """Return a codec of numcodecs, wrapped if it is one that can enlarge."""
    is_compressor = getattr(codec, "codec_id", "") in COMPRESSORS
    return BoundedNumcodec(codec, limit) if is_compressor else codec
