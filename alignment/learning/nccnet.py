"""Learn an NCCNet from stacks: find pairs once, then train to the end, however often killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from alignment.config import Config, describe_faults
from alignment.errors import ConfigError
from alignment.learning.pairs import Pairs, PairsConfig, find_pairs
from alignment.learning.stacks import Stacks, open_stack
from inference.config import NCCTrainingConfig
from storage.durable import replace
from storage.journal import digest_of

PAIRS = "pairs.json"


class LearnConfig(Config):
    """Everything that decides which network comes of stacks."""

    mip: Annotated[int, Field(ge=0, le=12)] = 1
    """Level of the pyramid at which sections will be matched by the network."""
    pairs: PairsConfig = PairsConfig()
    """What is learned from."""
    training: NCCTrainingConfig = NCCTrainingConfig()
    """How."""


def parse_learn_config(values: dict[str, Any]) -> LearnConfig:
    """Return the validated settings of nested `values`; missing ones get defaults.

    Raises
    ------
    ConfigError
        One line per fault.
    """
    try:
        return LearnConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_faults(error, LearnConfig)) from None


def pairs_of(
    uris: Sequence[str], folder: Path, config: LearnConfig, tell: Callable[[int, int], None]
) -> tuple[Stacks, Pairs]:
    """Return the stacks, and the pairs that were found in them before, or are now.

    Raises
    ------
    ConfigError
        If the folder holds pairs of other stacks or of other settings.
    """
    stacks = Stacks(tuple(open_stack(uri, config.mip) for uri in uris))
    seen = [{"uri": part.uri, "shape": list(part.shape)} for part in stacks.parts]
    about = {"stacks": seen, **config.model_dump(mode="json")}
    key = digest_of(json.dumps(about, sort_keys=True).encode())
    path = folder / PAIRS
    if path.exists():
        found = json.loads(path.read_text())
        if found["key"] != key:
            raise ConfigError(
                f"{path} was made of other stacks, or with other settings: "
                f"{json.dumps(found['about'])}; give another folder"
            )
        return stacks, Pairs.from_dict(found)
    pairs = find_pairs(stacks, config.pairs, config.training, tell=tell)
    folder.mkdir(parents=True, exist_ok=True)
    document = {"key": key, "about": about, **pairs.as_dict()}
    replace(path, json.dumps(document).encode())
    return stacks, pairs
