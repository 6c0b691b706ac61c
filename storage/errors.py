"""The errors of storage, split by what the caller does next.

StorageError
|- UriError          scheme, bucket or key is not allowed: do not retry
|- AccessError       the server refuses the credentials: do not retry
|- UnavailableError  no answer after all retries, disk full, I/O error: the same call may work later
|- MissingError      an object that must exist does not; never read as zeros
|- CorruptError      bytes do not match their checksum or cannot be decoded
|  `- LimitError     input is larger or stranger than `storage.limits` allows: do not retry
|- ConflictError     a create-only object exists with other content, or a swap came too late
|- ChunkGridError    a write would touch part of a shard, or a grid does not divide
|- MismatchError     data for a write has another shape or dtype than its place
`- SourceError       a source volume cannot be understood
"""


class StorageError(Exception):
    """Base of every error raised by `storage`."""


class UriError(StorageError, ValueError):
    """A URI's scheme, bucket or key is not allowed; never retried."""


class AccessError(StorageError, PermissionError):
    """The server or the file system refuses access; never retried."""


class UnavailableError(StorageError, OSError):
    """The store did not answer after its retries, or its disk failed; may work later."""


class MissingError(StorageError, FileNotFoundError):
    """An object that must exist does not; it is never read as zeros."""


class CorruptError(StorageError, ValueError):
    """Bytes do not match their checksum, or cannot be decoded."""


class LimitError(CorruptError):
    """Input goes beyond a limit of `storage.limits`: broken, hostile, or in an unfit form."""


class ConflictError(StorageError, FileExistsError):
    """A create-only object exists with other content, or another writer was first."""


class ChunkGridError(StorageError, ValueError):
    """A write would touch part of a shard, or shard and chunk sizes do not divide."""


class MismatchError(StorageError, ValueError):
    """Data for a write has another shape or dtype than the place it is for."""


class SourceError(StorageError, ValueError):
    """A source volume cannot be understood."""
