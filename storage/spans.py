"""zarr's requests for parts of an object, as slices, after a look at whether they can be meant."""

from __future__ import annotations

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from storage.errors import CorruptError, LimitError


def span(request: ByteRequest | None, most: int, where: str) -> slice:
    """Return the slice that a request means: ``[a:b]``, ``[a:]`` or ``[-n:]``.

    Parameters
    ----------
    most : int
        Bytes that one request may ask for; of ``[a:]`` only the store can tell.
    where : str
        Names the object in errors.

    Raises
    ------
    CorruptError
        If it ends before it begins: a shard's index is damaged.
    LimitError
        If it asks for more.

    Examples
    --------
    >>> span(RangeByteRequest(4, 9), 100, "c/0")
    slice(4, 9, None)
    """
    match request:
        case None:
            return slice(0, None)
        case RangeByteRequest(start, end):
            if not 0 <= start <= end:
                raise CorruptError(f"{where}: its index names the bytes {start} to {end}")
            if end - start > most:
                raise LimitError(
                    f"{where}: its index names a chunk of {end - start} bytes; the array's "
                    f"metadata allow for {most}"
                )
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(-suffix, None) if suffix else slice(0, 0)
    raise ValueError(f"Unexpected byte_range, got {request!r}")
