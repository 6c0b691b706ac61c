"""Learn an NCCNet from stacks: find pairs once, then train to the end, however often killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from alignment.errors import ConfigError
from alignment.learning.config import LearnConfig
from alignment.learning.pairs import Pairs, find_pairs
from alignment.learning.stacks import Stacks, open_stack
from storage.durable import replace
from storage.journal import digest_of

PAIRS = "pairs.json"


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
