"""What a run reads beside its source: masks drawn by hand, a model or networks of its own.

Each is named in the configuration by its URI and frozen by its content, like the source: a run
never mixes two versions of one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from alignment.confidence_model import Model, parse_model, shipped_model
from alignment.config import PipelineConfig
from alignment.errors import DataError
from inference.errors import ModelError
from inference.model import Network
from inference.model_file import decode, digest
from inference.shipped import SHIPPED
from storage.grid import ZYX
from storage.journal import digest_of
from storage.sections import Source, open_source
from storage.store import normalise_uri, read_bytes

ATTACHED = ("drawn", "defects", "model", "features")
"""What `attached` may find."""


def attached(config: PipelineConfig, shape: ZYX) -> dict[str, Any]:
    """Return what a run over sections of a shape freezes of its attachments, JSON values.

    Raises
    ------
    DataError
        If drawn masks do not fit the source, or a model or network is none.
    SourceError, MissingError, UriError
        If one of them cannot be read.
    """
    found: dict[str, Any] = {}
    if config.masks.drawn:
        drawn = open_source(normalise_uri(config.masks.drawn))
        if drawn.shape != shape:
            raise DataError(
                f"masks.drawn: {config.masks.drawn} has the shape {drawn.shape}, the source "
                f"{shape} (z, y, x); a mask has one pixel for each of the source"
            )
        found["drawn"] = {"sections": drawn.describe()["sections"]}
    if config.masks.network:
        found["defects"] = digest(read_bytes(normalise_uri(config.masks.network)))
    if config.filter.model:
        text = read_bytes(normalise_uri(config.filter.model)).decode("utf-8", "replace")
        parse_model(text)
        found["model"] = digest_of(text.encode())
    if config.features.kind == "nccnet":
        content, name = _network(config.features.model)
        _transformable(content, name)
        found["features"] = digest(content)
    return found


def feature_network(uri: str, sha256: str) -> Network:
    """Return the network that makes the features of a run.

    Raises
    ------
    DataError
        If it is not what it was when the run was made.
    """
    content, name = _network(uri)
    if digest(content) != sha256:
        raise DataError(
            f"features.model: {name} was changed since the run was made. Start a new run with it"
        )
    return _transformable(content, name)


def defect_network(uri: str, sha256: str) -> bytes:
    """Return the file of the network that marks defects for a run.

    Raises
    ------
    DataError
        If it is not what it was when the run was made.
    """
    content = read_bytes(normalise_uri(uri))
    if digest(content) != sha256:
        raise DataError(
            f"masks.network: {uri} was changed since the run was made. Start a new run with it"
        )
    return content


def _network(uri: str) -> tuple[bytes, str]:
    """Return a network's file and what it is called; the shipped one without a URI."""
    if uri:
        return read_bytes(normalise_uri(uri)), uri
    return SHIPPED.read_bytes(), f"the shipped network {SHIPPED.name}"


def _transformable(content: bytes, name: str) -> Network:
    """Decode a network, and check that it makes the one image that is matched."""
    try:
        network = decode(content, name=name)
    except ModelError as error:
        raise DataError(f"features.model: {error}") from None
    if network.config.channels != 1:
        raise DataError(
            f"features.model: {name} makes {network.config.channels} images, and matching takes "
            "one; train it with training.network.channels=1"
        )
    return network


@lru_cache(maxsize=2)
def drawn_masks(run_uri: str, uri: str) -> Source:
    """Return the masks drawn for a run; opened anew for each run, since they may have changed."""
    return open_source(normalise_uri(uri))


@lru_cache(maxsize=4)
def confidence_model(run_uri: str, uri: str, digest: str) -> Model:
    """Return the model of a run.

    Raises
    ------
    DataError
        If it is not what it was when the run was made.
    """
    if not uri:
        return shipped_model()
    text = read_bytes(normalise_uri(uri)).decode("utf-8", "replace")
    if digest_of(text.encode()) != digest:
        raise DataError(
            f"filter.model: {uri} was changed since the run was made. Start a new run with it"
        )
    return parse_model(text)
