"""The columns that the figures draw are the results, and the charts over them are valid."""

import math
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pytest

from symnoise_ray.config import Parameter
from symnoise_ray.noise.types import NOISES
from symnoise_ray.records.files import write_json
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report import frames
from symnoise_ray.report.colours import arms_of
from symnoise_ray.report.content import shown
from symnoise_ray.report.response import fitted_lines
from symnoise_ray.statistics.fit import Curves, coordinates, floored
from tests.report.made import CHOICE, CURVES, content, read, results, rows, trial


def _by_trial(columns: frames.Columns, field: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in zip(columns["trial"], columns[field], strict=True):
        found.setdefault(name, []).append(value)
    return found


def test_every_chart_is_valid_vega_lite() -> None:
    many = [trial(n, ("none", "symnoise")[n % 2], n / 1000) for n in range(1, 601)]
    for given in (content(), content(trials=many, choices=[])):
        curves = {row["trial"]: CURVES["000-none"] for row in given["trials"]}
        page = shown(read(given), curves, {"symnoise": {"optim.lr": 0.7, "noise.alpha": 0.3}})
        charts = [figure.chart for part in page.parts for figure in part.figures]
        assert len(charts) >= 7
        for chart in charts:
            alt.LayerChart.from_dict(chart)


def test_a_diverging_loss_stays_inside_the_figure() -> None:
    columns = frames.of_curves(rows([trial(0, "none", 0.5), trial(2, "symnoise", 0.5)]), CURVES)
    losses = _by_trial(columns, "clean_loss")
    assert losses["000-none"] == [4.0, 1.0]
    assert losses["002-symnoise"] == [4.0, None, pytest.approx(1.2 * 4.0)]
    assert _by_trial(columns, "curvature")["000-none"] == [0.2, -0.01]


def test_a_value_that_is_not_finite_is_left_out() -> None:
    bad = [{"step": 0, "clean_loss": math.nan, "loss": math.inf, "curvature": True}]
    columns = frames.of_curves(rows([trial(0, "none", 0.5)]), {"000-none": bad})
    assert [columns[name] for name in ("clean_loss", "loss", "curvature")] == [[None]] * 3


def test_curves_of_many_trials_are_the_quartiles_of_each_arm() -> None:
    trials = rows([trial(n, "symnoise", 0.5) for n in range(101)])
    curves = {row.trial: [{"step": 7, "loss": float(n)}] for n, row in enumerate(trials)}
    columns = frames.of_curves(trials, curves)
    assert (columns["field"], columns["step"], columns["count"]) == (["loss"], [7], [101])
    assert [columns[name] for name in ("low", "median", "high")] == [[25.0], [50.0], [75.0]]


def test_a_long_curve_keeps_its_measurements_and_few_other_points() -> None:
    line = [{"step": n, "loss": 1.0} for n in range(1000)]
    line[501]["clean_loss"] = 0.5
    columns = frames.of_curves(rows([trial(0, "none", 0.5)]), {"000-none": line})
    assert len(columns["step"]) <= frames.MOST_STEPS + 1
    assert 501 in columns["step"]


def test_settings_that_are_drawn_are_numbers_that_differ() -> None:
    given = content()
    given["trials"][2]["params"] |= {"train.packing": "on", "optim.beta": 0, "optim.warmup": 0.1}
    assert frames.varied_numbers(read(given)) == ["noise.alpha"]
    given["trials"][1]["params"]["optim.lr"] = 1e-4
    assert frames.varied_numbers(read(given)) == ["noise.alpha", "optim.lr"]


def test_the_mark_of_a_pair_is_a_diamond_and_unknown_arms_differ() -> None:
    arms = arms_of(["new", "symnoise", "none", "old"])
    assert [arm.name for arm in arms] == ["none", "symnoise", "new", "old"]
    assert [arm.mark for arm in arms] == ["circle", "diamond", "circle", "circle"]
    assert len({arm.colour for arm in arms}) == 4


def test_every_noise_type_has_a_colour_of_its_own() -> None:
    arms = arms_of(NOISES)
    assert [arm.name for arm in arms] == list(NOISES)
    assert len({arm.colour for arm in arms}) == len(NOISES)


RATES = [(0.001, 0.42), (0.002, 0.55), (0.004, 0.5), (0.008, 0.3)]


def _fitted_sweep(folder: Path) -> SweepResult:
    lr = {"type": "float", "low": 0.001, "high": 0.008, "log": True}
    write_json({"parameters": {"optim.lr": lr}}, folder / "sweep.json")
    trials = [
        trial(n, "symnoise", rate, params={"noise.type": "symnoise", "optim.lr": at})
        for n, (at, rate) in enumerate(RATES)
    ]
    candidates = [
        {"trial": row["trial"], "label": "", "win_rate": row["win_rate"], "standard_error": 0.02}
        for row in trials
    ]
    chosen = {"candidates": candidates, "trial": "001-symnoise", "params": trials[1]["params"]}
    return read(content(trials=trials, choices=[CHOICE | chosen]), folder)


def test_the_line_of_the_fit_is_the_fit_that_chose(tmp_path: Path) -> None:
    columns = fitted_lines(_fitted_sweep(tmp_path), ["optim.lr"])
    parameter = Parameter(type="float", low=0.001, high=0.008, log=True)
    ats, rates = map(np.array, zip(*RATES, strict=True))
    places = coordinates([{"optim.lr": at} for at in ats], {"optim.lr": parameter})
    known = Curves(np.zeros(4), places, floored(rates), np.full(4, 0.02)).at(0, places)
    assert columns["arm"] == ["symnoise"] * len(columns["at"])
    assert (columns["at"][0], columns["at"][-1]) == pytest.approx((0.001, 0.008))
    middle = np.interp(np.log(ats), np.log(columns["at"]), columns["fit"])
    assert middle == pytest.approx(known.mean_N, abs=2e-3)
    band = np.subtract(columns["high"], columns["fit"])
    assert np.interp(np.log(ats), np.log(columns["at"]), band) == pytest.approx(
        known.deviation_N, abs=2e-3
    )


def test_without_ranges_or_a_fit_there_is_no_line(tmp_path: Path) -> None:
    assert fitted_lines(results(), ["noise.alpha"]) == {}
    found = _fitted_sweep(tmp_path)
    (tmp_path / "sweep.json").unlink()
    assert fitted_lines(found, ["optim.lr"]) == {}
