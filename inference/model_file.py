"""Files of networks: safetensors, which hold numbers and text, and nothing that could run.

A file is eight bytes of length, a JSON header, and the weights as float32, one behind the other.
The header's metadata hold the configuration. The same network has the same bytes wherever it is
written, so that the digest of its file names it; a file that is not as it is written here in any
way is refused.

References
----------
.. [1] https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from inference.config import NCCNetConfig
from inference.errors import ModelError
from inference.model import Network
from inference.nccnet import weight_shapes

FORMAT = "petalign-1"
MAX_HEADER_BYTES = 2**20
_ALIGNMENT = 8


def digest(content: bytes) -> str:
    """Return the name of a network's content: the SHA-256 of its file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def encode(network: Network) -> bytes:
    """Return the content of a network's file."""
    header: dict[str, Any] = {
        "__metadata__": {"config": network.config.model_dump_json(), "format": FORMAT}
    }
    parts, start = [], 0
    for name in sorted(network.weights):
        part = np.ascontiguousarray(network.weights[name], "<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(network.weights[name].shape),
            "data_offsets": [start, start + len(part)],
        }
        parts.append(part)
        start += len(part)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def decode(content: bytes, *, name: str = "the model") -> Network:
    """Return the network of a file's content.

    Raises
    ------
    ModelError
        If the content isn't exactly what `encode` would write for the network that it names.
    """
    try:
        network = _decode(content)
    except (ValueError, KeyError, TypeError, ValidationError, struct.error) as error:
        raise ModelError(f"{name} is not a model of petalign ({FORMAT}): {error}") from error
    return network


def _decode(content: bytes) -> Network:
    (length,) = struct.unpack_from("<Q", content)
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"a header of {length} bytes in a file of {len(content)}")
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"]
    if metadata["format"] != FORMAT:
        raise ValueError(f"its format is {metadata['format']!r}")
    config = NCCNetConfig.model_validate_json(metadata["config"])
    data = memoryview(content)[8 + length :]
    shapes = weight_shapes(config)
    # The sizes come from the configuration, not from the header, which is compared afterwards.
    if len(data) != 4 * sum(int(np.prod(shape)) for shape in shapes.values()):
        raise ValueError(f"{len(data)} bytes of weights do not fit widths {config.widths}")
    weights, start = {}, 0
    for name in sorted(shapes):
        number = int(np.prod(shapes[name]))
        values = np.frombuffer(data, "<f4", number, start).reshape(shapes[name])
        weights[name] = values.astype(np.float32)
        start += 4 * number
    network = Network(config, weights)
    if encode(network) != content:
        raise ValueError("its header does not describe its weights")
    return network


def write_model(path: Path, network: Network) -> str:
    """Write a network's file, whole or not at all, and return its digest."""
    content = encode(network)
    replace_file(path, content)
    return digest(content)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_model(path: Path, *, sha256: str | None = None) -> Network:
    """Read a network's file.

    Parameters
    ----------
    sha256 : str, optional
        Digest that the file must have.

    Raises
    ------
    ModelError
        If the file is damaged, holds something else, or has another digest.
    """
    content = path.read_bytes()
    found = digest(content)
    if sha256 is not None and found != sha256:
        raise ModelError(
            f"{path} has the digest {found}, but {sha256} was asked for; set the model's digest to "
            "that of the file, if it is meant"
        )
    return decode(content, name=str(path))
