"""The engine's races and their tables, once and small."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from inference.engine import Engine, reference
from inference.engine.builder import Builder
from inference.engine.engine import Settings
from inference.engine.ops import (
    Activate,
    Activation,
    Add,
    Concat,
    Crop,
    Pool,
    Resize,
    Scale,
    TransposedConv,
)
from tests.benchmarks.engine import cost, export, goals, layers, reports, results, sweep, table
from tests.benchmarks.engine.networks import SWEEP_WIDTHS, TWELVE, find
from tests.benchmarks.engine.peak.measure import peak_gflop_s
from tests.benchmarks.engine.peers import exchange, to_onnx
from tests.benchmarks.engine.race import gflop, hold_in
from tests.benchmarks.engine.results import Entrant, Race

HERE = Path(sys.executable)


def _graph():
    """Return a network that has every operation which peers know."""
    draw = np.random.default_rng(0)
    builder = Builder()
    x = builder.input("grey", (2, 4, 8, 12))
    x = builder.conv("first", x, draw.normal(size=(3, 3, 3, 2, 5)) / 7, padding="same")
    x = builder.add("norm", Scale(*draw.uniform(0.5, 1, (2, 5)).astype(np.float32)), x)
    skip = builder.add("elu", Activate(Activation("elu", 1.0)), x)
    x = builder.add("pool", Pool("max", (1, 2, 2), (1, 2, 2)), skip)
    kernel = (draw.normal(size=(1, 2, 2, 5, 5)) / 3).astype(np.float32)
    up = TransposedConv(kernel, np.ones(5, np.float32), (1, 2, 2), ((0, 0), (0, 0), (0, 0)))
    x = builder.add("sum", Add(), builder.add("up", up, x), skip)
    near = builder.add("near", Resize((1, 2, 2)), x)
    far = builder.add("far", Resize((1, 2, 2), "linear"), x)
    x = builder.add("join", Concat(), near, far)
    x = builder.add("cut", Crop(((1, 0), (2, 1), (0, 3))), x)
    x = builder.conv("last", x, draw.normal(size=(1, 1, 1, 10, 3)) / 3, [1, 2, 3])
    return builder.graph([builder.activated("softmax", x, Activation("softmax"))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made, graph = tmp_path_factory.mktemp("network"), export.with_padding(_graph())
    export.write_graph("tiny", graph, made)
    x = np.random.default_rng(1).normal(size=(1, 2, 4, 8, 12)).astype(np.float32)
    expected = reference.run(graph, np.moveaxis(x[0], 0, -1))[0]
    np.save(made / "input.npy", x)
    np.save(made / "expected.npy", np.moveaxis(expected, -1, 0)[np.newaxis].astype(np.float32))
    return made


@pytest.fixture(scope="module")
def race(folder):
    return hold_in(folder, "tiny", 1, 2, ("engine", "OpenVINO, float16", "nobody"), HERE)


def test_what_is_written_for_peers_is_the_same_network(folder):
    network = exchange.load(folder)
    x, expected = network.array("input"), network.array("expected")
    engine = Engine(export.read_graph(network), Settings(tuning=False))
    np.testing.assert_allclose(
        np.moveaxis(engine(np.moveaxis(x, 1, -1)), -1, 1), expected, atol=1e-5
    )


def test_the_onnx_file_computes_the_same(folder):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    network = exchange.load(folder)
    session = onnxruntime.InferenceSession(str(to_onnx.write(network)))
    (found,) = session.run(None, {"grey": network.array("input")})
    np.testing.assert_allclose(found, network.array("expected"), atol=1e-5)


def test_who_can_run_has_times_and_who_cannot_says_why(race):
    engine, unknown, nobody = race.entrants
    assert len(engine.wall_s) == len(engine.cpu_s) == 2
    assert min(engine.wall_s) > 0
    assert engine.error < 1e-5
    assert "float16" in unknown.failure or "No module" in unknown.failure
    assert "nobody" in nobody.failure
    assert not unknown.wall_s
    assert not nobody.wall_s
    assert race.voxels == 3 * 13 * 21
    assert race.results()["engine"].ratio == 1


def test_tables_have_a_row_for_all(race):
    text = table.table([race])
    assert "| tiny | engine |" in text
    assert f"| tiny | nobody | {race.entrants[2].failure} |" in text
    widths = {line.count("|") for line in reports.details([race]).splitlines()}
    assert len(widths) == 1
    assert sweep._row(race, 8).startswith("| 8 | ")


def test_a_race_is_kept_until_the_engine_changes(race, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    race.save()
    assert results.saved("tiny", 1, ["engine"], 2) == race
    assert results.saved("tiny", 1, ["engine"], 3) is None
    assert results.saved("tiny", 1, ["engine", "nobody"]) is None
    assert results.saved("tiny", 2) is None
    monkeypatch.setattr(results, "sources", lambda: "others")
    assert results.saved("tiny", 1) is None


def _raced(key, ours, theirs):
    entrants = [
        Entrant(way, wall_s=[s], cpu_s=[s])
        for way, s in (("engine", ours), ("OpenVINO, float32", theirs))
    ]
    return Race(key, key, 2, 100.0, 10**6, 200.0, "here.", "", entrants)


def test_goals_are_judged_by_the_fastest_way_of_a_peer():
    text = goals.judged([_raced("A", 0.4, 1.2), _raced("B", 1.0, 1.5), _raced(TWELVE[0], 1, 3)])
    assert "| A | OpenVINO, float32 | 2.5 | 3.5 | 3.00 | 3.00 | met, below the aim |" in text
    assert "| A | TensorFlow | 2.8 | 3.5 | | | not measured |" in text
    assert "| B | OpenVINO, float32 | 1.7 |  | 1.50 | 1.50 | missed |" in text
    assert f"| {TWELVE[0]} | OpenVINO, float32 | 1.0 |  | 3.00 | 3.00 | met |" in text


def test_cost_says_what_is_not_known():
    prices = yaml.safe_load(cost.PRICES.read_text(encoding="utf-8"))
    text = cost.tables(prices, [_raced("A", 0.5, 1.0)])
    # 2 Mvoxel/s on 2 of 4 cores at 0.34 an hour
    assert f"| A | {2 * 3600 / 0.17:,.0f} | {3600 / 0.17:,.0f} |" in text
    assert f" / {cost.UNKNOWN} |" in text
    prices["gpu_speeds"] = [
        {"gpu": prices["gpu"][0]["name"], "network": "A", "voxels_per_s": 5e6, "source": "none"}
    ]
    assert " / 5.0 |" in cost.tables(prices, [_raced("A", 0.5, 1.0)])


def test_an_account_holds_all_operations():
    engine = Engine(_graph(), Settings(tuning=False))
    rows = layers.grouped(engine.graph, engine.program, [0.25] * len(engine.program.labels))
    assert sum(row.gflop for row in rows) == pytest.approx(gflop(engine.graph))
    assert sum(row.seconds for row in rows) == 0.25 * len(engine.program.labels)
    assert [row.title for row in rows if row.is_cube] == ["3 x 3 x 3, 2 to 5 channels, 4 x 8 x 12"]
    x = np.zeros((1, 4, 8, 12, 2), np.float32)
    assert "| *3 x 3 x 3 together* | 1 |" in layers.account(engine, x, 1)


def test_the_peak_is_measured_where_there_is_a_compiler():
    peak = peak_gflop_s(1, turns=1)
    assert peak is None or 1 < peak < 2000  # no core does 256 products and sums a cycle


def test_networks_are_found_by_their_keys():
    keys = ["A", "B", "C", *TWELVE, *(f"{k}-{n}" for k in ("block", "flat") for n in SWEEP_WIDTHS)]
    assert len({find(key).title for key in keys}) == len(keys)
