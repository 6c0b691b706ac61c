"""Commands: a list of words, into single ones of which values are put; no shell ever sees them.

A command is split into words *before* anything is filled in, and a value stays inside its word. A
word is filled once: what a value contains is never looked at as a template again. What decides
which code runs (program, script, module) may not be a placeholder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import unquote

from alignment.recipes.parameters import Value, text_of
from storage.errors import UriError
from storage.uri import check_key, normalise_uri

PLACEHOLDER = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")
MAX_WORDS = 256
MAX_WORD = 4096
PROGRAMS = ("petalign", "python")
"""Programs that every worker has; a connection may name more."""

_OPERATORS = re.compile(r"&&?|\|\|?|;|;;|!|\d?[<>]{1,3}&?\d?|&>|\(|\)|\{|\}")
_SUBSTITUTION = re.compile(r"\$[({A-Za-z_]|`|<\(")
_PROGRAM = re.compile(r"[A-Za-z][\w.+-]*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_URI = re.compile(r"(?:^|=)([A-Za-z][A-Za-z0-9+.-]*://.*)", re.DOTALL)
_PYTHON_OPTIONS = ("-u", "-O", "-OO", "-B")


def split_command(command: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command; a text is split as a shell would, but by no shell.

    >>> split_command("python fit.py --name 'two words' --rate={{ rate }}")
    ('python', 'fit.py', '--name', 'two words', '--rate={{rate}}')

    Raises
    ------
    ValueError
        If quotes do not close, or there are too many or too long words.
    """
    if isinstance(command, str):
        whole = PLACEHOLDER.sub(lambda match: f"{{{{{match[1]}}}}}", command)
        if "\n" in whole.strip():
            raise ValueError("a command is one line: no shell runs a script of several")
        words = shlex.split(whole)
    else:
        words = [PLACEHOLDER.sub(lambda match: f"{{{{{match[1]}}}}}", word) for word in command]
    if not 1 <= len(words) <= MAX_WORDS:
        raise ValueError(f"a command has 1 to {MAX_WORDS} words, this one {len(words)}")
    for word in words:
        if len(word) > MAX_WORD or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", word):
            raise ValueError(
                f"the word {word[:40]!r} holds a control character, or more than {MAX_WORD} letters"
            )
    return tuple(words)


def check_command(words: Sequence[str], names: Collection[str], files: Collection[str]) -> None:
    """Refuse a command that asks for a shell, lets a value decide what runs, or fills unknowns.

    Parameters
    ----------
    words : sequence of str
        From `split_command`.
    names : collection of str
        The experiment's parameters.
    files : collection of str
        The recipe's own files, from which scripts are taken.

    Raises
    ------
    ValueError
        With the reason.
    """
    for word in words:
        check_word(word, names)
        if _OPERATORS.fullmatch(word) or (word.endswith(";") and len(word) > 1):
            raise ValueError(f"{word!r} is for a shell, and none runs; make it several experiments")
        if _SUBSTITUTION.search(word):
            raise ValueError(f"{word!r} asks a shell to substitute something, and none runs")
    program, *arguments = words
    if not _PROGRAM.fullmatch(program):
        raise ValueError(
            f"the program {program!r} must be the name of an allowed program, such as 'python': "
            "neither a path nor a placeholder nor a variable"
        )
    if program == "python":
        _check_python(arguments, files)
    elif arguments and program == "petalign" and not arguments[0][:1].isalpha():
        raise ValueError(f"petalign needs its verb first, got {arguments[0]!r}")


def check_word(word: str, names: Collection[str]) -> None:
    """Refuse placeholders without a parameter, and every other form of template."""
    for name in PLACEHOLDER.findall(word):
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise ValueError(
                f"{{{{{name}}}}} is no parameter of the experiment; there are: {known}"
            )
    rest = PLACEHOLDER.sub("", word)
    if any(mark in rest for mark in ("{{", "}}", "{%", "{#")):
        raise ValueError(
            f"{word!r} holds a template that is not {{{{name}}}}: values are put in as they are, "
            "nothing is evaluated"
        )


def _check_python(arguments: Sequence[str], files: Collection[str]) -> None:
    rest = list(arguments)
    while rest and rest[0] in _PYTHON_OPTIONS:
        rest.pop(0)
    if not rest:
        raise ValueError("python needs a script: one of the recipe's `files`, or -m MODULE")
    if rest[0] == "-m":
        if len(rest) < 2 or not _MODULE.fullmatch(rest[1]):
            raise ValueError("python -m needs the plain name of a module, without a placeholder")
        return
    if rest[0].startswith("-"):
        raise ValueError(
            f"python {rest[0]} is refused: code belongs into a file that is named under `files`; "
            f"options may be {', '.join(_PYTHON_OPTIONS)} and -m"
        )
    if rest[0] not in files:
        known = ", ".join(sorted(files)) or "none"
        raise ValueError(f"the script {rest[0]!r} is not one of the recipe's `files`: {known}")


def fill(words: Sequence[str], values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the words with their placeholders replaced.

    >>> fill(("python", "fit.py", "--rate={{rate}}"), {"rate": 0.5})
    ('python', 'fit.py', '--rate=0.5')

    Raises
    ------
    ValueError
        If a value would become an option, lead out of a folder, or make a URI of another kind.
    """
    texts = {name: text_of(value) for name, value in values.items()}
    return tuple(_fill_word(word, texts) for word in words)


def _fill_word(word: str, texts: Mapping[str, str]) -> str:
    filled = PLACEHOLDER.sub(lambda match: texts[match[1]], word)
    if filled == word:
        return word
    if len(filled) > MAX_WORD:
        raise ValueError(f"{word!r} becomes longer than {MAX_WORD} letters")
    if filled.startswith("-") and not word.startswith("-"):
        raise ValueError(
            f"{word!r} would become the option {filled!r}; write --name={word} in the template"
        )
    if ".." in _segments(filled) and ".." not in _segments(word):
        raise ValueError(f"{word!r} would become {filled!r}, which leads out of its folder")
    if filled[:1] in "/~" and word[:1] not in "/~":
        raise ValueError(f"{word!r} would become the absolute path {filled!r}")
    _check_uri(word, filled, texts)
    return filled


def _segments(text: str) -> list[str]:
    return re.split(r"[/\\=:, ]", unquote(unquote(text)))


def _check_uri(word: str, filled: str, texts: Mapping[str, str]) -> None:
    if "://" not in filled:
        return
    if "://" not in word and not any("://" in text for text in texts.values()):
        raise ValueError(f"{word!r} would be put together to the URI {filled!r}")
    match = _URI.search(filled)
    if match is None:
        raise ValueError(f"{filled!r} holds a URI that does not stand alone or behind '='")
    try:
        normalise_uri(match[1])
    except UriError as error:
        raise ValueError(f"{word!r} would become {filled!r}: {error}") from None


def uris_in(words: Iterable[str]) -> set[str]:
    """Return the URIs among filled words.

    >>> uris_in(("python", "fit.py", "--raw=s3://lab/raw.zarr"))
    {'s3://lab/raw.zarr'}
    """
    return {match[1] for word in words if (match := _URI.search(word))}


def check_file_name(name: str) -> str:
    """Return the name of a file of the recipe if it lies beside the recipe or below it.

    Raises
    ------
    ValueError
        If it is absolute, leads upwards, or is not plain.
    """
    try:
        check_key(name)
    except UriError as error:
        raise ValueError(f"expected the name of a file beside the recipe: {error}") from None
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or name.startswith(("-", "~")):
        raise ValueError(f"{name!r}: files have letters, digits and . _ + - in their names")
    return name
