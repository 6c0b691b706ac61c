"""A cache of remote objects on the local disk, shared by all processes of a machine.

`entry` is the format of one file, `folder` keeps their number bounded, `blocks` knows which part of
which version of an object a file holds, `origin` fetches what is absent, `arrays` puts it behind
zarr arrays, and `prefetch` fills it ahead of a list of boxes.
"""

from __future__ import annotations

from storage.cache.blocks import BlockCache, open_cache

__all__ = ["BlockCache", "open_cache"]
