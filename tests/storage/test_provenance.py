from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

from storage import provenance

PRINT = "from storage.provenance import code_version; print(code_version())"


def _version(folder: Path) -> str:
    """Return the code version of the project as laid out in `folder`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {PRINT}"],
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    return done.stdout.strip()


def test_shape_of_the_version():
    assert re.fullmatch(r"[0-9.]+\w*\+[0-9a-f]{16}", provenance.code_version())


def test_everything_is_json_and_the_same_again():
    found = provenance.provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["libraries"]["zarr"].startswith("3.4")
    assert found["libraries"]["numpy"] != "absent"


def test_any_change_of_the_code_changes_the_version(tmp_path):
    root = Path(provenance.__file__).parent.parent
    for package in provenance.PACKAGES:
        copytree(root / package, tmp_path / package, ignore=ignore_patterns("__pycache__", "*.so"))
    before = _version(tmp_path)
    grid = tmp_path / "storage" / "grid.py"
    content = grid.read_bytes()
    grid.write_bytes(content.replace(b"\n", b"\r\n"))
    assert _version(tmp_path) == before  # line ends are no change
    grid.write_bytes(content + b"# more\n")
    changed = _version(tmp_path)
    assert changed != before
    grid.write_bytes(content)
    (tmp_path / "alignment" / "notes.txt").write_text("not code")
    (tmp_path / "alignment" / "cli.py").write_text("# no result comes from here")
    assert _version(tmp_path) == before
    (tmp_path / "inference" / "fast.c").write_text("int f;")
    assert _version(tmp_path) not in (before, changed)
