import json

import numpy as np

from alignment.report import build_report, qc_json
from alignment.wander import Wander, low_pass
from tests.alignment.test_report import MISSING, Page, report_data


def drifting(nz, *, px=10.0):
    """Sections that drift by `px` over the stack; the fourth has no field."""
    random = np.random.default_rng(0)
    moved = random.normal(scale=0.5, size=(nz, 4))
    moved[:, 1] += np.linspace(0, px, nz)
    moved[MISSING] = np.nan
    return Wander(moved, low_pass(moved))


def test_the_page_shows_wander_with_its_peak_to_peak():
    wander = drifting(200)
    html = build_report(report_data(200, pictured=[], wander=wander))
    text = " ".join(Page(html).text)
    assert "Wander" in text
    assert f"{wander.peak_to_peak_px['dx']:.2f} px" in text
    assert 8 < wander.peak_to_peak_px["dx"] < 10
    charts = html[html.index('id="wander"') : html.index('id="masks"')]
    assert charts.count('class="line after"') == charts.count('class="line before"') == 2
    assert charts.count(f"section {MISSING}: bridged") == 2


def test_wander_is_in_the_numbers_for_machines():
    told = json.loads(json.dumps(qc_json(report_data(6, wander=drifting(6)))))["wander"]
    assert set(told["peak_to_peak_px"]) == {"dy", "dx", "turn", "growth"}
    assert len(told["dx"]) == 6
    assert told["dx"][MISSING] is None
    assert told["window_sections"] == 25


def test_a_run_without_a_field_has_no_such_part():
    data = report_data(6)
    assert 'id="wander"' not in build_report(data)
    assert qc_json(data)["wander"] is None
    alone = np.full((6, 4), np.nan)
    alone[0] = 1
    bridged = report_data(1, wander=Wander(alone[:1], alone[:1]))
    assert 'id="wander"' not in build_report(bridged)
