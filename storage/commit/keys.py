"""Keys of runs and units: digests of everything that their results depend on.

Equal keys mean equal results, so a key says without a look at any voxel whether a unit must be
computed again. What a unit reads enters by its *content*: a section that is ingested again with
the same voxels changes the key of nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.journal import digest_of


def canonical(value: Any) -> bytes:
    """Return the one text of a JSON value, for digests.

    >>> canonical({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def unit_key(
    *,
    stage: str,
    phase: str,
    unit: str,
    parameters: Mapping[str, Any],
    inputs: Sequence[str],
    code: str,
    libraries: Mapping[str, str],
) -> str:
    """Return the key of a unit of work, 64 hex digits (blake3).

    Parameters
    ----------
    parameters : mapping
        The settings that the unit's result depends on, JSON values.
    inputs : sequence of str
        Digests of the contents that the unit reads, or facts that are their own digest.
    code : str
        Digest of the sources that compute the unit.
    libraries : mapping
        Versions of the libraries through whose hands its voxels go.
    """
    return digest_of(
        canonical(
            {
                "stage": stage,
                "phase": phase,
                "unit": unit,
                "parameters": dict(parameters),
                "inputs": list(inputs),
                "code": code,
                "libraries": dict(libraries),
            }
        )
    )


def run_key(frozen: Mapping[str, Any]) -> str:
    """Return the key of a run from all that it froze: source, configuration, code, libraries."""
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()[:16]
