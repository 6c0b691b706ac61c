"""Volumes, sections and records in object storage; knows nothing of alignment or Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.aligned import open_aligned
    from storage.prediction import open_prediction

__all__ = ["open_aligned", "open_prediction"]


def __getattr__(name: str) -> Any:
    """Import what is heavy (dask, xarray, zarr) only for who asks for it."""
    if name == "open_aligned":
        from storage.aligned import open_aligned

        return open_aligned
    if name == "open_prediction":
        from storage.prediction import open_prediction

        return open_prediction
    raise AttributeError(f"module 'storage' has no attribute {name!r}")
