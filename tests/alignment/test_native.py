"""The compiled kernel: built, loaded, and the same on every processor."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import inference.native
from alignment import native
from alignment.ncc import engine_name, find_matches, score_surfaces
from inference.native import builder
from inference.native.builder import Sources
from storage import provenance
from tests.feature_images import SIZES, jobs_over, pair, sizes


def test_it_was_built_by_the_installation():
    assert builder.compilers(), "no compiler, and no ziglang wheel: make install brings one"
    assert engine_name() == "native"


@pytest.mark.parametrize("holes", [False, True])
def test_every_width_of_vectors_gives_the_same_bits(holes):
    libraries = [isa for isa in native.ISAS if native.library(isa) is not None]
    if len(libraries) < 2:
        pytest.skip("this processor has one width of vectors only")
    images = pair(holes=holes)
    for template_px, window_px in SIZES:
        settings = sizes(template_px, window_px)
        jobs = jobs_over(images, template_px, window_px)
        first, *others = (
            (
                find_matches(images, jobs, **settings, isa=isa),
                score_surfaces(images, jobs, **settings, is_turned=True, isa=isa),
            )
            for isa in libraries
        )
        for other in others:
            np.testing.assert_array_equal(other[1], first[1])
            np.testing.assert_array_equal(other[0][0].offset, first[0][0].offset)
            np.testing.assert_array_equal(other[0][0].r_delta, first[0][0].r_delta)
            np.testing.assert_array_equal(other[0][0].mirror, first[0][0].mirror)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says what it has")
@pytest.mark.parametrize("kernels", [native.KERNELS, inference.native.KERNELS])
def test_the_widest_vectors_of_this_processor_are_used(kernels):
    flags = Path("/proc/cpuinfo").read_text().split()
    wide = [isa for isa, flag in (("avx512", "avx512vl"), ("avx2", "avx2")) if flag in flags]
    assert kernels.widest() == (wide[0] if wide else "portable")


@pytest.mark.parametrize("kernels", [native.KERNELS, inference.native.KERNELS])
def test_a_library_of_other_sources_is_not_used(kernels, monkeypatch, caplog):
    monkeypatch.setattr(Sources, "digest", lambda self: "0123")
    again = replace(kernels, _loaded={})
    assert again.widest() is None
    assert "run `make install`" in caplog.text


@pytest.mark.parametrize("kernels", [native.KERNELS, inference.native.KERNELS])
def test_one_line_says_what_is_missing_where_nothing_was_built(kernels, caplog, tmp_path):
    again = replace(kernels, sources=Sources(tmp_path, "_kernel", ()), _loaded={})
    assert again.widest() is None
    assert again.library("portable") is None
    (line,) = caplog.messages
    assert line == f"_kernel_portable.so is not built: {kernels.missing}"


def test_without_the_kernel_numpy_gives_the_same_matches(monkeypatch):
    images = pair(holes=True)
    jobs = jobs_over(images, 32, 48)
    compiled, overlap = find_matches(images, jobs, **sizes(32, 48))
    monkeypatch.setattr(native, "library", lambda isa=None: None)
    plain, plain_overlap = find_matches(images, jobs, **sizes(32, 48))
    np.testing.assert_allclose(plain.offset, compiled.offset, atol=0.01)
    np.testing.assert_allclose(plain.score, compiled.score, atol=1e-5)
    np.testing.assert_allclose(plain_overlap, overlap, atol=1e-5)


def test_a_library_appears_whole_or_not_at_all(tmp_path):
    sources = replace(native.SOURCES, folder=tmp_path)
    for source in [*native.SOURCES.folder.glob("*.hpp"), *native.SOURCES.folder.glob("*.cpp")]:
        shutil.copy(source, tmp_path)
    (tmp_path / "ncc.cpp").write_text("this is no program")
    with pytest.raises(subprocess.CalledProcessError):
        builder.compile_library(sources, builder.compilers()[0], "portable")
    assert not list(tmp_path.glob("*.so"))
    assert not list(tmp_path.glob(".build-*"))


def test_keys_of_matching_change_with_the_kernel(monkeypatch, tmp_path):
    name, find = "alignment/native/peak.hpp", provenance._source_files
    before = provenance.module_code.__wrapped__("alignment.stages.match")
    changed = tmp_path / "peak.hpp"
    changed.write_bytes(dict(find("alignment"))[name].read_bytes() + b"// another\n")
    monkeypatch.setattr(
        provenance,
        "_source_files",
        lambda package: [(n, changed if n == name else path) for n, path in find(package)],
    )
    assert provenance.module_code.__wrapped__("alignment.stages.match") != before
    masks = provenance.module_code("alignment.stages.masks")
    assert provenance.module_code.__wrapped__("alignment.stages.masks") == masks
