"""Clean, split and tokenise shards of text: three steps of one recipe.

A step reads what was laid into ./in, leaves files in ./out and a few figures in ./result.json.
"""

import argparse
import gzip
import html
import json
import random
import re
from collections import Counter
from pathlib import Path

WORDS = ["the", "cell", "axon", "dendrite", "synapse", "of", "in", "a", "membrane", "is", "near"]


def write(shard: int, documents: int) -> None:
    """Make a shard of documents as they come from the web: markup, entities, odd spaces."""
    draw = random.Random(shard)
    lines, words = [], 0
    for _ in range(documents):
        sentences = []
        for _ in range(draw.randint(2, 6)):
            chosen = [draw.choice(WORDS) for _ in range(draw.randint(3, 9))]
            words += len(chosen)
            sentences.append("<p>" + "&nbsp; ".join(chosen).capitalize() + ".</p>")
        lines.append(json.dumps({"html": " ".join(sentences)}))
    Path("out/documents.jsonl").write_text("\n".join(lines))
    save({"documents": documents, "words": words})


def tokenise(shard: int, longest: int) -> None:
    """Clean the documents of a shard, split them into sentences, and these into tokens."""
    source = Path(f"in/write/{shard:05d}/documents.jsonl")
    documents = tokens = 0
    with gzip.open("out/tokens.jsonl.gz", "wt") as target:
        for line in source.read_text().splitlines():
            documents += 1
            for sentence in split(clean(json.loads(line)["html"])):
                found = re.findall(r"\w+", sentence.lower())[:longest]
                tokens += len(found)
                target.write(json.dumps(found) + "\n")
    print(f"shard {shard}: {documents} documents, {tokens} tokens")
    save({"documents": documents, "tokens": tokens})


def clean(text: str) -> str:
    """Return text without markup, entities and runs of spaces."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text))).strip()


def split(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [sentence for sentence in re.split(r"(?<=\.)\s+", text) if sentence]


def count() -> None:
    """Count the vocabulary of all shards, and check that no word was lost on the way."""
    vocabulary: Counter[str] = Counter()
    for path in sorted(Path("in/tokenise").glob("*/tokens.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                vocabulary.update(json.loads(line))
    tasks = json.loads(Path("in/tokenise.json").read_text())
    expected = sum(task["result"]["tokens"] for task in tasks)
    if vocabulary.total() != expected:
        raise SystemExit(f"{vocabulary.total()} tokens in the files, {expected} in the records")
    Path("out/vocabulary.json").write_text(json.dumps(vocabulary, sort_keys=True))
    documents = sum(task["result"]["documents"] for task in tasks)
    save({"documents": documents, "tokens": vocabulary.total(), "words": len(vocabulary)})


def save(figures: dict[str, int]) -> None:
    """Leave figures for the record of this task."""
    Path("result.json").write_text(json.dumps(figures))


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["write", "tokenise", "count"])
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--longest", type=int, default=64)
    given = parser.parse_args()
    if given.step == "write":
        write(given.shard, given.documents)
    elif given.step == "tokenise":
        tokenise(given.shard, given.longest)
    else:
        count()


if __name__ == "__main__":
    main()
