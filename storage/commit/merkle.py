"""Merkle trees: one digest that vouches for many.

As in R. C. Merkle, "A Digital Signature Based on a Conventional Encryption Function", CRYPTO '87,
with leaves and inner nodes told apart by a prefix as in RFC 6962, section 2.1, and blake3 in the
place of SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3


def merkle_root(leaves: Iterable[bytes]) -> str:
    """Return the root (64 hex digits) over leaves in their order.

    A level's odd last node moves up as it is.

    >>> merkle_root([]) == blake3(b"").hexdigest()
    True
    >>> merkle_root([b"a", b"b"]) == merkle_root([b"b", b"a"])
    False
    """
    level = [blake3(b"\0" + leaf).digest() for leaf in leaves]
    if not level:
        return str(blake3(b"").hexdigest())
    while len(level) > 1:
        pairs = [
            blake3(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()
