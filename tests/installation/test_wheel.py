"""The wheel computes where there is no compiler; and where there is none, it can be built."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from inference import native
from inference.engine import reference
from inference.native import builder
from tests.inference.engine.samples import sample
from tests.inference.engine.test_passes import residual_net

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
USE = """
import shutil, sys
from pathlib import Path
import numpy as np
import alignment.native, inference
from inference import native
from inference.shipped import SHIPPED
from inference.transform import load_transform

assert Path(sys.prefix) in Path(inference.__file__).parents, inference.__file__
assert not any(map(shutil.which, ("c++", "g++", "clang++", "cc"))), "there is a compiler"
assert alignment.native.library() is not None
image = np.random.default_rng(0).integers(1, 255, (200, 264), np.uint8)
np.save(sys.argv[1], load_transform(SHIPPED)(image, image > 0))
print(native.widest())
"""
BUILD = """
from inference import native
from inference.native import builder

used = builder.build(native.SOURCES)
assert "ziglang" in used, used
print(native.widest())
"""
LINUX_ON_ARM = 183  # the machine in the header of an ELF file


def _run(*command, **settings):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def _uv(*command):
    return _run(sys.executable, "-m", "uv", *command)


def _without_compilers(folder, **variables):
    """Return an environment whose only programs are those of a folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CXX", "PYTHONPATH")}
    return kept | {"PATH": str(folder)} | variables


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a copy of the project without anything compiled."""
    copy = tmp_path_factory.mktemp("source") / "petalign"
    for name in _run("git", "ls-files", cwd=ROOT).splitlines():
        if name.startswith(("tests/", "docs/")) or not (ROOT / name).is_file():
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def ziglang(tmp_path_factory):
    """Return a folder of packages that holds the compiler of `make install`, and no other."""
    folder = tmp_path_factory.mktemp("ziglang")
    makefile = (ROOT / "Makefile").read_text()
    (version,) = [line for line in makefile.splitlines() if line.startswith("ZIG :=")]
    _uv("pip", "install", "--quiet", "--target", str(folder), version.removeprefix("ZIG := "))
    return folder


def test_it_computes_without_a_compiler(source, tmp_path):
    _uv("build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("*.whl")
    venv = tmp_path / "venv"
    _uv("venv", "--quiet", "--python", sys.executable, str(venv))
    python = venv / "bin" / "python"
    _uv("pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel))
    # What it depends on lies beside the tests; the project itself is found in the wheel first.
    packages = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(packages, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")

    made = tmp_path / "made.npy"
    environment = _without_compilers(venv / "bin")
    used = _run(python, "-c", USE, made, env=environment, cwd=tmp_path)

    assert used == native.widest()
    from inference.shipped import SHIPPED
    from inference.transform import load_transform

    image = np.random.default_rng(0).integers(1, 255, (200, 264), np.uint8)
    np.testing.assert_array_equal(np.load(made), load_transform(SHIPPED)(image, image > 0))


def test_it_is_built_by_zig_where_there_is_no_compiler(source, ziglang, tmp_path):
    paths = os.pathsep.join([str(source), str(ziglang), sysconfig.get_path("purelib")])
    environment = _without_compilers(tmp_path, PYTHONPATH=paths, PYTHONNOUSERSITE="1")
    used = _run(sys.executable, "-c", BUILD, env=environment, cwd=source)
    assert used.splitlines()[-1] == native.widest()

    x = sample((3, 8, 9, 3))
    expected = reference.run(residual_net(), x[0])[0]
    np.save(tmp_path / "x.npy", x)
    run = (
        "import numpy as np\n"
        "from inference.engine.engine import Engine, Settings\n"
        "from tests.inference.engine.test_passes import residual_net\n"
        "made = Engine(residual_net(), Settings(tuning=False))(np.load('x.npy'))\n"
        "np.save('made.npy', made)\n"
    )
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("data"))
    _run(sys.executable, "-c", run, env=environment, cwd=tmp_path)
    made = np.load(tmp_path / "made.npy")[0]
    np.testing.assert_allclose(made, expected, rtol=0, atol=5e-5)


def test_it_compiles_for_arm(ziglang, tmp_path):
    sources = native.SOURCES
    made = tmp_path / "engine.so"
    defines = ['-DPETALIGN_SOURCES="test"', "-DPETALIGN_ISA=portable", *builder.VECTORS["portable"]]
    flags = [*builder.FLAGS, *sources.flags, *defines, "-target", "aarch64-linux-gnu"]
    files = map(str, sorted(sources.folder.glob("*.cpp")))
    environment = dict(os.environ, PYTHONPATH=str(ziglang))
    compiler = (sys.executable, "-m", "ziglang", "c++")
    _run(*compiler, *flags, *files, "-o", str(made), env=environment)
    kind, machine = struct.unpack_from("<HH", made.read_bytes(), 16)
    assert (kind, machine) == (3, LINUX_ON_ARM)  # a shared object
