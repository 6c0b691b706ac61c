"""Learn an NCCNet from a stack: find pairs once, then train to the end, however often killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from alignment.errors import ConfigError
from alignment.learning.config import LearnConfig
from alignment.learning.pairs import Pairs, find_pairs
from alignment.learning.stacks import Stack, open_stack
from storage.durable import replace
from storage.journal import digest_of

PAIRS = "pairs.json"


def pairs_of(
    uri: str, folder: Path, config: LearnConfig, tell: Callable[[int, int], None]
) -> tuple[Stack, Pairs]:
    """Return the stack, and the pairs that were found in it before, or are now.

    Raises
    ------
    ConfigError
        If the folder holds pairs of another stack or of other settings.
    """
    stack = open_stack(uri, config.mip)
    about = {"stack": stack.uri, "shape": list(stack.shape), **config.model_dump(mode="json")}
    key = digest_of(json.dumps(about, sort_keys=True).encode())
    path = folder / PAIRS
    if path.exists():
        found = json.loads(path.read_text())
        if found["key"] != key:
            raise ConfigError(
                f"{path} was made of another stack, or with other settings: "
                f"{json.dumps(found['about'])}; give another folder"
            )
        return stack, Pairs.from_dict(found)
    pairs = find_pairs(stack, config.pairs, config.training, tell=tell)
    folder.mkdir(parents=True, exist_ok=True)
    document = {"key": key, "about": about, **pairs.as_dict()}
    replace(path, json.dumps(document).encode())
    return stack, pairs
