"""What a reader can hold a run to: digests of its metadata, and the tail of each of its objects.

Checksums inside an object catch flipped bits. With these a reader also catches an object at the
wrong place, one of another copy of the run, and metadata that were changed: everything down to the
root that the publish pointer states.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import store
from storage.commit import manifest, tails
from storage.commit.merkle import merkle_root
from storage.commit.tails import PlacedTails, Tails
from storage.errors import CorruptError
from storage.journal import digest_of


@dataclass(frozen=True)
class Trust:
    """What the seals of a run state."""

    run_uri: str
    metadata: dict[str, str]
    tails: dict[str, Tails]

    @property
    def is_sealed(self) -> bool:
        """Whether a stage of the run is finished, so that there is anything to hold it to."""
        return bool(self.metadata)

    def read_document(self, path: str) -> bytes:
        """Return a metadata document of the run.

        Raises
        ------
        CorruptError
            If it is not the one that the run was sealed with, or none was.
        """
        uri = store.join(self.run_uri, path)
        data = store.read_bytes(uri)
        if self.metadata.get(path) != digest_of(data):
            raise CorruptError(
                f"{uri} is not what the run was sealed with; mend it with `petalign repair`"
            )
        return data

    def tails_of(self, path: str) -> PlacedTails | None:
        """Return the tails of an array; None if no finished stage wrote voxels of it."""
        stated = self.tails.get(path)
        return None if stated is None else tails.read(self.run_uri, path, stated)


def trust(run_uri: str, root: str | None = None) -> Trust:
    """Return what the seals of a run state.

    Parameters
    ----------
    root : str, optional
        What the pointer or a version says that the run's root is.

    Raises
    ------
    CorruptError
        If the seals do not give that root.
    """
    seals = [manifest.read_seal(run_uri, s) for s in sorted(manifest.sealed_stages(run_uri))]
    found = merkle_root(manifest.leaf(seal) for seal in seals)
    if root is not None and found != root:
        raise CorruptError(
            f"{run_uri} has the root {found[:16]}, but was published with {root[:16]}: its "
            "manifests were changed. Look at it with `petalign verify`"
        )
    metadata = {path: digest for seal in seals for path, digest in seal.metadata.items()}
    placed = {path: stated for seal in seals for path, stated in seal.tails.items()}
    return Trust(store.normalise_uri(run_uri), metadata, placed)
