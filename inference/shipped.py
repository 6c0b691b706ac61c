"""The network that ships; its model card lies beside it."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "weights" / "nccnet-small.safetensors"
"""Taken where no other is named."""
