"""The secret key of S3 shows up nowhere: in nothing a run stores, prints or logs, nor in errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage import store
from tests.storage.conftest import SECRET_KEY, s3_endpoint, s3_root  # noqa: F401  (fixtures)

WRONG_KEY = "another0CANARY7d21"

PETALIGN = "import logging; logging.basicConfig(level=0); from alignment.cli import main; main()"
"""The command line, with everything logged that any library has to say."""

SMALL = [
    "--set", "volume.aligned_shard=[4, 128, 128]", "--set", "volume.aligned_chunk=[4, 64, 64]",
    "--workers", "1",
]  # fmt: skip


@pytest.fixture
def petalign(tmp_path, s3_root):  # noqa: F811
    """Return a function that runs a command and keeps what it printed; and the folder of it all."""
    folder = tmp_path / "printed"
    folder.mkdir()
    (tmp_path / "tmp").mkdir()

    def run(*arguments: str, expect: int | None = 0, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PETALIGN, *arguments],
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "DASK_LOGGING__DISTRIBUTED":
                 "debug", "PETALIGN_HOME": str(tmp_path / "home"), **environment},
            cwd=tmp_path, capture_output=True, text=True, timeout=400,
        )  # fmt: skip
        number = len(list(folder.iterdir()))
        (folder / f"{number}.txt").write_text(f"{arguments}\n{done.stdout}\n{done.stderr}")
        if expect is not None:
            assert done.returncode == expect, done.stderr[-3000:]
        return done.stdout

    return run


def hits(secret: str, texts: dict[str, bytes]) -> list[str]:
    return [name for name, text in texts.items() if secret.encode() in text]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.slow
def test_the_secret_key_is_nowhere_after_a_run(petalign, s3_root, tmp_path):  # noqa: F811
    raw, volume = f"{s3_root}/raw.zarr", f"{s3_root}/out.zarr"
    petalign("sample", raw, "--sections", "4", "--side", "256")
    petalign("plan", raw)
    petalign("plan", raw, "--json")
    petalign("align", raw, volume, *SMALL)
    petalign("status", volume, "--json")
    petalign("report", volume, "--to", str(tmp_path / "report.html"))
    petalign("verify", volume, "--full", "--json")
    petalign("versions", volume)
    link = petalign("export", volume, "--to", "link")
    assert "neuroglancer" in link or "#!" in link

    petalign("align", raw, f"{s3_root}/b", *SMALL, expect=None, AWS_SECRET_ACCESS_KEY=WRONG_KEY)
    petalign("status", volume, expect=None, AWS_SECRET_ACCESS_KEY=WRONG_KEY)
    petalign("plan", f"{s3_root}/absent", expect=None)
    petalign("plan", f"s3://{SECRET_KEY[:4]}-no-such-bucket/raw", expect=None)

    stored = {key: store.read_bytes(f"{s3_root}/{key}") for key, _, _ in store.walk(s3_root)}
    kept = files_below(tmp_path)
    assert len(stored) > 50
    assert any(name.endswith("report.html") for name in kept)
    printed = b"".join(text for name, text in kept.items() if "/printed/" in name)
    assert b"AccessError" in printed or b"access refused" in printed
    for secret in (SECRET_KEY, WRONG_KEY):
        assert hits(secret, {**stored, **kept}) == []
