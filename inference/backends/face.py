"""What a network of patches takes and gives, as its file declares it: the same by every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.errors import ModelError
from inference.network import ZYX

Size = Sequence[int | None]


@dataclass(frozen=True)
class Face:
    """A network that maps one volume to one volume."""

    is_flat: bool
    """Whether it is a network of images, which sees each section of a patch by itself."""
    patch: ZYX | None
    """The size that it was made for, None for any."""
    channels: int
    """Values that it gives for a voxel."""

    @classmethod
    def of(cls, inputs: Sequence[Size], outputs: Sequence[Size]) -> Face:
        """Return the face of a network by its inputs and outputs, without the batch.

        Raises
        ------
        ModelError
            If it does not map a volume to a volume.
        """
        ranks = {len(size) for size in (*inputs, *outputs)}
        if len(inputs) != 1 or len(outputs) != 1 or ranks not in ({3}, {4}):
            raise ModelError(
                f"the model has the inputs {list(map(tuple, inputs))} and outputs "
                f"{list(map(tuple, outputs))}; expected one of each, (z, y, x, channel) or (y, x, "
                "channel) without the batch"
            )
        *size, channel = inputs[0]
        channels = outputs[0][-1]
        if channel != 1 or channels is None:
            raise ModelError(
                f"the model takes {channel} channels and gives {channels}; a volume has 1, and "
                "what it gives must be known"
            )
        if None in size and any(size):
            raise ModelError(
                f"the model takes patches of {tuple(size)} (z, y, x); save it with all of them or "
                "none"
            )
        is_flat = ranks == {3}
        if None in size:
            return cls(is_flat, None, channels)
        z, y, x = (int(n or 0) for n in ((1, *size) if is_flat else size))
        return cls(is_flat, (z, y, x), channels)

    def batched(self, patch: ZYX, batch: int = 1) -> tuple[int, ...]:
        """Return the shape in which the model takes patches: sections are images of their own."""
        return (batch * patch[0], *patch[1:], 1) if self.is_flat else (batch, *patch, 1)

    def check_patch(self, patch: ZYX) -> None:
        """Refuse patches of another size than the network was made for."""
        of_images = self.is_flat and self.patch and self.patch[1:] == patch[1:]
        if self.patch not in (None, patch) and not of_images:
            raise ModelError(
                f"the model takes patches of {self.patch} (z, y, x), got {patch}; leave "
                "patches.patch_px empty"
            )

    def shrink(self, patch: ZYX, made: ZYX) -> ZYX:
        """Return by how many voxels what is made of a patch is smaller, at either side."""
        less = [p - n for p, n in zip(patch, made, strict=True)]
        if any(n % 2 or n < 0 for n in less):
            raise ModelError(
                f"the model makes {made} of a patch of {patch} (z, y, x); expected as many "
                "voxels, or fewer by the same number at either side. For a model that halves "
                "its resolution, choose patches.patch_px as multiples"
            )
        return less[0] // 2, less[1] // 2, less[2] // 2
