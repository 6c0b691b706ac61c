"""What produced an output: the version of the code and of the libraries whose results it holds.

A run's key is a digest over its source, its configuration and this, so that a changed program gives
another run instead of a mixture.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import platform
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("alignment", "inference", "storage")
"""The project's own code that computes results."""

NOT_RESULTS = (
    "alignment/cli.py", "alignment/commands/", "alignment/driving/", "alignment/errands/",
    "alignment/learning/", "alignment/planning/", "alignment/platform/", "alignment/predicting/",
    "alignment/recipes/", "alignment/verbs/", "inference/correlogram.py", "inference/dice.py",
    "inference/matching_loss.py", "inference/native/build.py", "inference/ncc_layer.py",
    "inference/nccnet_training.py", "inference/pair_samples.py", "inference/rsunet.py",
    "inference/tf_ncc.py", "inference/training/", "inference/training_files.py",
    "inference/unet.py",
)  # fmt: skip
"""What lies in these packages and computes none: a better help text must not start a new run."""

LIBRARIES = (
    "numpy", "scipy", "opencv-python-headless", "zarr", "numcodecs", "obstore", "tifffile",
    "imagecodecs", "dask", "distributed",
)  # fmt: skip
"""Libraries through whose hands voxels go."""

_SOURCES = frozenset({".py", ".pyx", ".c", ".cc", ".cpp", ".h", ".hpp"})


def provenance() -> dict[str, Any]:
    """Return everything of this module as JSON values; holds no host, no path and no time."""
    return {"code": code_version(), "libraries": library_versions()}


@cache
def code_version() -> str:
    """Return the package's version and a digest of its sources, for example ``0.1.0+3f9a01c2``.

    Two checkouts agree exactly if the files of `PACKAGES` do, without `NOT_RESULTS`: their names,
    and their content but for the way lines end. Takes some ms, once per process.
    """
    digest = hashlib.sha256()
    for package in PACKAGES:
        for name, path in _source_files(package):
            content = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"{_version('petalign')}+{digest.hexdigest()[:16]}"


@cache
def module_code(module: str) -> str:
    """Return a digest of a module's sources and of all of the project's that it imports.

    What the module does cannot depend on other files of the project, so a change elsewhere leaves
    the digest, and with it the keys of the units that the module computes. Imports are read from
    the sources, those inside functions too; nothing is imported. Compiled sources count with the
    package that they lie in.

    Parameters
    ----------
    module : str
        Full name, for example ``alignment.stages.masks``.
    """
    sources = {name: path for package in PACKAGES for name, path in _source_files(package)}
    waiting, digests = [_file_of(module, sources)], {}
    while waiting:
        name = waiting.pop()
        if name is None or name in digests:
            continue
        digests[name], imported = _examined(sources[name])
        waiting += [_file_of(module, sources) for module in imported]
        if name.endswith("/__init__.py"):
            folder = name.removesuffix("__init__.py")
            waiting += [
                other
                for other in sources
                if other.rpartition("/")[0] + "/" == folder and not other.endswith(".py")
            ]
    text = "\n".join(f"{name} {digests[name]}" for name in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _examined(path: Path) -> tuple[str, frozenset[str]]:
    """Return the digest of a source and the full names of what it imports; once per process."""
    content = path.read_bytes().replace(b"\r\n", b"\n")
    imported = _imports(content) if path.suffix == ".py" else set()
    return hashlib.sha256(content).hexdigest(), frozenset(imported)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of `LIBRARIES`; "absent" for one that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


@cache
def _source_files(package: str) -> list[tuple[str, Path]]:
    """Return name (below the package's parent) and path of a package's sources, sorted by name.

    Found without importing the package, which may be heavy; storage may not import them anyway.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    return sorted(
        (path.relative_to(Path(root).parent).as_posix(), path)
        for root in spec.submodule_search_locations or ()
        for path in Path(root).rglob("*")
        if path.suffix in _SOURCES and path.is_file()
        if not path.relative_to(Path(root).parent).as_posix().startswith(NOT_RESULTS)
    )


def _file_of(module: str, sources: dict[str, Path]) -> str | None:
    """Return the name of the file that holds a module, or the object that is imported from it."""
    place = module.replace(".", "/")
    parent = place.rpartition("/")[0]
    for name in (f"{place}.py", f"{place}/__init__.py", f"{parent}.py", f"{parent}/__init__.py"):
        if name in sources:
            return name
    return None


def _imports(source: bytes) -> set[str]:
    """Return the full names of everything that a source imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def _version(distribution: str) -> str:
    """Return an installed version; its metadata takes 2 ms to read, and every unit's key asks."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
