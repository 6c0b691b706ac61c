"""Volumes, sections and records in object storage; knows nothing of alignment or Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.aligned import open_aligned

__all__ = ["open_aligned"]


def __getattr__(name: str) -> Any:
    """Import what is heavy (dask, xarray, zarr) only for who asks for it."""
    if name == "open_aligned":
        from storage.aligned import open_aligned

        return open_aligned
    raise AttributeError(f"module 'storage' has no attribute {name!r}")
