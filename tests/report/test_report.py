"""The report says everything the results hold, and is one well-formed page of its own."""

import copy
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_json, write_lines
from symnoise_ray.records.layout import RESULT, SWEEP
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.preferences import Preference
from symnoise_ray.records.results import SweepResult, TrialResult, read_sweep
from symnoise_ray.report import charts, sections
from symnoise_ray.report import write as report

HOSTILE = "<script>alert(\"x\")</script> & 'a' | b\nc `d` *e* [f](g) \x00 \ud800"


def _trial(number: int, arm: str, win_rate: float, **values: Any) -> dict[str, Any]:
    alpha = {} if arm == "none" else {"noise.alpha": 2.0 * number}
    return {
        "trial": f"{number:03d}-{arm}",
        "part": "search",
        "baseline": arm == "none",
        "is_reference": arm == "none",
        "status": "done",
        "kind": "",
        "reason": "",
        "arm": arm,
        "label": arm,
        "params": {"noise.type": arm, "optim.lr": 3e-3, **alpha},
        "seed": 0,
        "win_rate": win_rate,
        "interval_95": [win_rate - 0.05, win_rate + 0.07],
        "avg_length": 31.2,
        "clean_loss": 0.52,
        "first_clean_loss": 4.1,
        "noisy_loss": 0.58,
        "curvature": 0.123,
        "counts": {"rows truncated": 3},
        "seconds": dict(zip(PHASES, (0.1, 0.05, 3.1, 0.6, 0.0, 0.2, 0.3), strict=True)),
        **values,
    }


FAILED = {
    "trial": "003-gaussian",
    "part": "search",
    "baseline": False,
    "status": "failed",
    "kind": "diverged",
    "reason": "the loss is nan at step 31",
    "arm": "gaussian",
    "params": {},
    "win_rate": None,
}
COMPARISON = {
    "arm": "symnoise",
    "label": "symnoise 6.1, lr 0.0024",
    "win_rate": 0.561,
    "interval_95": [0.492, 0.634],
    "p_value": 0.1,
    "p_holm": 0.2,
    "num_prompts": 96,
    "num_seeds": 2,
    "verdict": "cannot tell yet",
    "opponent": "best",
    "against": "none, lr=0.003",
}
DECISION = {
    "arm": "symnoise",
    "label": "symnoise 6.1, lr 0.0024",
    "verdict": "cannot tell yet",
    "comparisons": [COMPARISON],
    "num_seeds": 2,
    "looks": [1, 2],
    "stopped": "last look",
    "num_trained": 4,
    "num_failed": 1,
    "seeds_needed": 13,
}
CHOICE = {
    "arm": "symnoise",
    "trial": "002-symnoise",
    "params": {"noise.alpha": 4.0},
    "method": "fit",
    "candidates": [
        {
            "trial": "002-symnoise", "label": "symnoise, alpha=4", "win_rate": 0.61,
            "standard_error": 0.031, "fitted": 0.583, "band": 0.022,
        }
    ],
    "flattered": 0.027,
}  # fmt: skip


def _content(**values: Any) -> dict[str, Any]:
    """The content of a results.json."""
    results = {
        "name": "quickstart",
        "version": "0.1.0",
        "status": "partial",
        "finished": "2026-01-01T12:00:00+00:00",
        "verdict": {"sentence": "It is not decided yet.", "decisions": [DECISION]},
        "choices": [CHOICE],
        "trials": [
            _trial(0, "none", 0.5),
            _trial(1, "neftune", 0.44, baseline=True),
            _trial(2, "symnoise", 0.61),
            FAILED,
            _trial(4, "symnoise", 0.57, part="confirm"),
        ],
        "seconds": {"search": 40.1, "wall": 95.0, "by_phase": dict.fromkeys(PHASES, 2.0)},
        "tracking": {"uri": "sqlite:///runs/mlflow.db", "experiment": "symnoise_ray"},
    }
    return copy.deepcopy(results | values)


def _read(content: dict[str, Any], directory: Path = Path("sweep")) -> SweepResult:
    return SweepResult.from_json(content, directory)


def _results(**values: Any) -> SweepResult:
    return _read(_content(**values))


def _rows(trials: list[dict[str, Any]]) -> list[TrialResult]:
    return [TrialResult.from_json(trial) for trial in trials]


CURVES: dict[str, list[dict[str, Any]]] = {
    "000-none": [
        {"step": 0, "clean_loss": 4.0, "curvature": 0.2},
        {"step": 10, "clean_loss": 1.0, "curvature": -0.01},
    ],
    "002-symnoise": [
        {"step": 0, "clean_loss": 4.0},
        {"step": 5, "loss": 2.0},
        {"step": 10, "clean_loss": 900.0},
    ],
}
EXAMPLE = {
    "instruction": "Name the sound of the cow.",
    "gold": "The cow says moo.",
    "reference": "moo",
    "reference_name": "000-none",
    "trial": "The cow says moo.",
    "trial_name": "002-symnoise",
    "winner": "trial",
}


def _page(text: str) -> ElementTree.Element:
    """Parse a page, which is written so that it is XML as well."""
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def _words(text: str) -> str:
    return " ".join(_page(text).itertext())


def _figure(markup: str) -> ElementTree.Element:
    figure = ElementTree.fromstring(f"<div>{markup}</div>").find(".//svg")
    assert figure is not None
    return figure


def _numbers(figure: ElementTree.Element, path: str, attribute: str) -> list[float]:
    return [float(found.attrib[attribute]) for found in figure.iterfind(path)]


@pytest.mark.parametrize("kind", ["html", "markdown"])
def test_everything_is_told(kind: str) -> None:
    if kind == "html":
        text = _words(report.html(_results(), CURVES, [EXAMPLE]))
    else:
        text = report.markdown(_results())
    for trial in _results().trials:
        assert trial.trial in text
    for words in (
        "It is not decided yet.",
        "Finished, but some trials have no result",
        "5 trials (4 done, 1 failed) in 1 min 35 s",
        "the loss is nan at step 31",
        "49.2 to 63.4",
        "about 13 seeds",
        "1 of 4",
        "that was the last look",
        "none, lr=0.003 (its own best)",
        "symnoise, alpha=4 (chosen)",
        "58.3",
        "symnoise: the largest win rate exceeds the fit by 2.7 points.",
        "61.0",
        "4.10 \u2192 0.52",
        "0.12",
        "rows truncated",
        "2026-01-01 12:00 UTC",
        *sections.READING,
    ):
        assert words in text


def test_markdown_tables_have_equal_rows() -> None:
    widths = []
    for block in report.markdown(_results(name=HOSTILE)).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        widths.append({len(re.findall(r"(?<!\\)\|", line)) for line in lines})
    assert sum(bool(width) for width in widths) == 9
    assert all(len(width) <= 1 for width in widths)


def test_trials_are_ranked_and_the_failed_one_is_last() -> None:
    text = report.markdown(_results())
    search = text[text.index("## Search") : text.index("## Where")]
    places = [search.index(name) for name in ("002-", "000-", "001-", "003-")]
    assert places == sorted(places)


def test_a_win_rate_of_zero_is_a_result() -> None:
    trials = [FAILED, _trial(1, "neftune", 0.0, interval_95=[0.0, 0.0])]
    text = report.markdown(_results(trials=trials))
    assert "| 001-neftune | neftune | 0.003 | 0.0 | 0.0 to 0.0 |" in text
    assert text.index("001-neftune") < text.index("003-gaussian")


def _controlled(rate: float, **values: Any) -> dict[str, Any]:
    ends = [rate - 0.06, rate + 0.08]
    return {
        "length_controlled_win_rate": rate,
        "length_controlled_interval_95": ends,
        **values,
    }


def test_the_rate_at_equal_lengths_is_shown_and_warns_where_lengths_hardly_overlap() -> None:
    results = _content()
    results["verdict"]["decisions"][0]["comparisons"][0] |= _controlled(0.532)
    results["trials"][1] |= _controlled(0.412, longer_rate=0.96)
    results["trials"][2] |= _controlled(0.583, longer_rate=0.95)
    for text in (report.markdown(_read(results)), _words(report.html(_read(results), CURVES, []))):
        assert "53.2 (47.2 to 61.2)" in text
        assert "41.2 (35.2 to 49.2), longer on 96.0 %" in text
        assert "58.3 (52.3 to 66.3)" in text
        assert text.count(", longer on ") == 1
    assert "| 000-none (reference) | none | 0.003 | 50.0 | 45.0 to 57.0 | \u2013 |" in (
        report.markdown(_read(results))
    )


def test_trials_that_stopped_early_are_told() -> None:
    results = _content()
    assert "stopped once the side" not in report.markdown(_read(results))
    results["trials"][2]["stopped_early"] = True
    results["trials"][1]["stopped_early"] = False
    text = report.markdown(_read(results))
    assert "The judging of 1 of 4 trials stopped once the side of 50 % was decided." in text


def test_what_the_answers_look_like_is_a_table_where_it_is_known() -> None:
    results = _content()
    heading = "What the answers look like"
    assert heading not in report.markdown(_read(results))
    told = {"num_answers": 9, "length_median": 30.5, "words_mean": 6.25, "repetition_2": 0.015}
    results["trials"][2] |= told | {"refusal_rate": 0.0, "compression_ratio": 2.345}
    text = report.markdown(_read(results))
    assert "| 002-symnoise | 30 | 6.2 | 1.5 | \u2013 | 2.35 | \u2013 | 0.0 | \u2013 |" in text
    assert heading in _words(report.html(_read(results), CURVES, []))


def test_html_needs_nothing_from_outside() -> None:
    page = report.html(_results(tracking={"uri": "http://host:5000"}), CURVES, [EXAMPLE])
    outside = r"(?i)<(script|link|img|iframe|object)|\b(src|href)\s*=|url\(|@import"
    assert not re.search(outside, page)
    assert "prefers-color-scheme" in page


def test_every_figure_has_a_title() -> None:
    figures = list(_page(report.html(_results(), CURVES, [EXAMPLE])).iter("svg"))
    titles = [figure.findtext("title") for figure in figures]
    assert titles == [
        "Win rates in the confirmation",
        "Win rates in the search",
        "Win rate against alpha",
        "Clean loss by step",
        "Curvature by step",
        "Seconds of each trial by phase",
    ]


def test_hostile_text_is_shown_not_run() -> None:
    results = _content(name=HOSTILE)
    results["verdict"]["sentence"] = HOSTILE
    (decision,) = results["verdict"]["decisions"]
    hostile = {"label": HOSTILE, "verdict": HOSTILE, "arm": HOSTILE}
    decision |= hostile | {"over": "", "withheld": HOSTILE}
    decision["comparisons"][0] |= hostile | {"against": HOSTILE}
    results["choices"][0] |= {"arm": HOSTILE, "note": HOSTILE}
    results["departures"] = [HOSTILE]
    results["trials"][3] |= {"reason": HOSTILE, "kind": HOSTILE}
    results["trials"][2] |= {"label": HOSTILE, "arm": HOSTILE, "counts": {HOSTILE: 1}}
    example = dict.fromkeys(EXAMPLE, HOSTILE) | {"winner": "tie"}
    page = report.html(_read(results), CURVES, [example])
    page.encode()
    assert "<script" not in page
    assert _words(page).count("<script>alert(\"x\")</script> & 'a' | b\nc `d`") >= 10
    text = report.markdown(_read(results))
    text.encode()
    assert "<script" not in text
    assert r"&lt;script>" in text
    assert r"&amp; 'a' \| b c \`d\` \*e\* \[f\](g)" in text


def test_underscores_inside_words_stay_plain() -> None:
    results = _content()
    results["trials"][3]["reason"] = "raise warmup_ratio, _not_ this"
    assert r"raise warmup_ratio, \_not\_ this" in report.markdown(_read(results))


def test_a_password_in_the_tracking_address_is_left_out() -> None:
    tracking = {"uri": "postgresql://me:secret@host/db", "experiment": "e"}
    results = _content(tracking=tracking)
    for text in (report.markdown(_read(results)), report.html(_read(results), {}, [])):
        assert "secret" not in text
        assert "postgresql://me:***@host/db" in text.replace(r"\*", "*")


def test_bare_results_break_nothing() -> None:
    bare = {"trial": "000-none", "part": "search", "status": "done"}
    for trials in ([], [bare], [FAILED], [bare | {"win_rate": 0.5}]):
        results = {"name": "n", "status": "interrupted", "trials": trials}
        words = _words(report.html(_read(results), {}, []))
        assert "The sweep ended before a verdict could be given." in words
        assert "Interrupted before its end" in report.markdown(_read(results))


def test_no_comparison_is_said_in_words() -> None:
    results = _content(verdict={"sentence": "No winner.", "decisions": []})
    for text in (report.markdown(_read(results)), _words(report.html(_read(results), CURVES, []))):
        assert "Nothing was compared with plain fine-tuning on fresh seeds" in text


def test_what_was_done_otherwise_than_declared_is_told() -> None:
    told = "part 2, after a verdict: confirm.looks [3] -> [3, 8]"
    for departures, expected in (([], 0), ([told], 1)):
        results = _results(departures=departures)
        page = _words(report.html(results, CURVES, []))
        assert page.count("Otherwise than declared") == page.count(told) == expected
        assert report.markdown(results).count("## Otherwise than declared") == expected


def test_a_choice_that_was_not_made_by_a_fit_says_how() -> None:
    (candidate,) = CHOICE["candidates"]
    bare = {**candidate, "fitted": None, "band": None}
    raw = CHOICE | {"method": "pairs", "candidates": [bare], "flattered": None, "note": "No judge."}
    text = report.markdown(_results(choices=[raw]))
    assert "symnoise: its win rates could not rank its settings, so those were judged" in text
    assert "symnoise: No judge." in text
    assert "exceeds the fit" not in text
    assert "## Choice of settings" not in report.markdown(_results(choices=[]))


def test_a_verdict_that_is_withheld_is_marked() -> None:
    results = _content()
    results["verdict"]["decisions"][0]["withheld"] = "2 of its 4 trainings failed"
    assert "cannot tell yet (withheld)" in report.markdown(_read(results))


def test_further_settings_get_a_column() -> None:
    results = _content()
    results["trials"][2]["params"]["train.num_epochs"] = 7
    text = report.markdown(_read(results))
    assert "| train.num_epochs |" in text
    assert re.search(r"002-symnoise .* 7 \|\n", text)


def test_rows_lie_where_their_win_rates_are() -> None:
    rates = [0.7, 0.5, 0.3]
    trials = [
        _trial(n, "neftune", rate, interval_95=[rate - 0.1, rate + 0.1])
        for n, rate in enumerate(rates)
    ]
    figure = _figure(charts.win_rates(_rows(trials), "title"))
    (half,) = _numbers(figure, ".//line[@class='half']", "x1")
    places = _numbers(figure, ".//circle", "cx")
    starts = _numbers(figure, ".//line[@class='interval']", "x1")
    ends = _numbers(figure, ".//line[@class='interval']", "x2")
    assert half == pytest.approx((charts.LABEL_END + 20 + charts.WIDTH - 60) / 2)
    assert places[1] == half
    assert places == sorted(places, reverse=True)
    assert places[0] - half == pytest.approx(half - places[2], abs=0.02)
    assert all(a < place < b for a, place, b in zip(starts, places, ends, strict=True))


def test_alpha_is_logarithmic_and_higher_is_better() -> None:
    trials = [
        _trial(n, "neftune", rate, params={"noise.alpha": alpha})
        for n, (alpha, rate) in enumerate([(1, 0.4), (10, 0.5), (100, 0.6)])
    ]
    figure = _figure(charts.by_alpha(_rows(trials), "title"))
    x, y = _numbers(figure, ".//circle", "cx"), _numbers(figure, ".//circle", "cy")
    (half,) = _numbers(figure, ".//line[@class='half']", "y1")
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.02)
    assert y == sorted(y, reverse=True)
    assert y[1] == half


def test_one_alpha_alone_can_be_drawn() -> None:
    assert _numbers(
        _figure(charts.by_alpha(_rows([_trial(1, "neftune", 0.5)]), "title")), ".//circle", "cx"
    )


def test_a_diverging_loss_stays_inside_the_figure() -> None:
    trials = [_trial(0, "none", 0.5), _trial(2, "symnoise", 0.5)]
    figure = _figure(charts.clean_loss(_rows(trials), CURVES, "title"))
    lines = [line.attrib["points"].split() for line in figure.iterfind(".//polyline")]
    places = [[tuple(map(float, point.split(","))) for point in line] for line in lines]
    (plain_start, plain_end), (noisy_start, noisy_end) = places
    assert plain_start == noisy_start
    assert plain_end[0] == noisy_end[0] == charts.WIDTH - 20
    assert 28 <= noisy_end[1] < plain_start[1] < plain_end[1] <= 300


def test_a_negative_curvature_is_drawn_below_a_positive_one() -> None:
    figure = _figure(charts.curvature(_rows([_trial(0, "none", 0.5)]), CURVES, "title"))
    (line,) = [line.attrib["points"].split() for line in figure.iterfind(".//polyline")]
    (_, before), (_, after) = (map(float, point.split(",")) for point in line)
    assert 28 <= before < after <= 300
    assert charts.curvature(_rows([_trial(2, "symnoise", 0.5)]), CURVES, "title") == ""


def test_bars_have_the_length_of_their_seconds() -> None:
    trials = [_trial(0, "none", 0.5, seconds={"load": 1, "train": 3, "track": 50})]
    trials.append(_trial(1, "neftune", 0.5, seconds={"train": 2}))
    figure = _figure(charts.time_spent(_rows(trials), "title"))
    widths = [width for width in _numbers(figure, ".//rect", "width") if width > 0]
    full = charts.WIDTH - 60 - charts.LABEL_END - 20
    assert widths == pytest.approx([full / 4, full * 3 / 4, full / 2], abs=0.02)


def test_ticks_are_round() -> None:
    assert charts.ticks(0.3, 0.5) == pytest.approx([0.3, 0.35, 0.4, 0.45, 0.5])
    assert charts.ticks(0, 144) == pytest.approx([0, 20, 40, 60, 80, 100, 120, 140])


def test_unknown_noise_gets_the_colour_of_text() -> None:
    assert 'class="dot arm-other"' in charts.dot("new")
    assert ".arm-other" in charts.style()


def _write_trial(directory: Path, name: str, verdicts: dict[str, float | None]) -> None:
    curve = [{"step": 0, "clean_loss": 4.0}, {"step": 9, "clean_loss": 2.0}]
    write_lines(curve, directory / "metrics.jsonl")
    completions = (Completion(q, f"answer {q}", name, gold=f"gold {q}") for q in verdicts)
    write_lines(completions, directory / "completions.jsonl")
    preferences = []
    for item, (text, verdict) in enumerate(verdicts.items()):
        both = (f"plain {text}", "000-none", f"answer {text}", name)
        for order in ("reference first", "trial first"):
            preferences.append(Preference(item, text, "", *both, "judge", order, verdict))
    write_lines(preferences, directory / "preferences.jsonl")


def test_both_files_are_written(tmp_path: Path) -> None:
    verdicts = {"q1": 2.0, "q2": 1.0, "q3": 1.5, "q4": None}
    _write_trial(tmp_path / "trials" / "002-symnoise", "002-symnoise", verdicts)
    report.write_report(_read(_content(), tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"trials", "report.html", "report.md"}
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report.markdown(_results())
    page = _page((tmp_path / "report.html").read_text(encoding="utf-8"))
    told = [" ".join(article.itertext()) for article in page.iter("article")]
    assert told == [
        "q1 gold:  gold q1 reference plain q1 best noise: wins answer q1",
        "q2 gold:  gold q2 reference: wins plain q2 best noise answer q2",
        "q3 gold:  gold q3 reference: a tie plain q3 best noise: a tie answer q3",
        "q4 gold:  gold q4 reference: no valid verdict plain q4 best noise: no valid verdict "
        "answer q4",
    ]
    assert len(list(page.iter("polyline"))) == 1


def test_examples_are_few_and_always_the_same(tmp_path: Path) -> None:
    name = "002-symnoise"
    _write_trial(tmp_path / "trials" / name, name, {f"q{n}": 1.5 for n in range(50)})
    pages = []
    for _ in range(2):
        report.write_report(_read(_content(), tmp_path))
        pages.append((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert pages[0].count("<article>") == report.NUM_EXAMPLES


def test_a_sweep_without_any_trial_file_is_reported(tmp_path: Path) -> None:
    report.write_report(_read(_content(status="failed", trials=[FAILED]), tmp_path))
    assert "the loss is nan at step 31" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["html", "markdown"])
def test_noise_types_against_each_other_are_told_in_points(kind: str) -> None:
    results = _content()
    contrast = COMPARISON | {
        "over": "independent",
        "win_rate": 0.509,
        "interval_95": [0.4795, 0.54],
        "opponent": "",
        "against": "",
    }
    decision = DECISION | {"over": "independent", "comparisons": [contrast]}
    results["verdict"]["decisions"].append(decision)
    text = (
        _words(report.html(_read(results), CURVES, []))
        if kind == "html"
        else report.markdown(_read(results))
    )
    assert "symnoise 6.1, lr 0.0024" in text
    assert "independent" in text
    assert "+1.8" in text
    assert "-4.1 to +8.0" in text.replace("\\", "")
    assert "50.9" not in text


def test_a_sweep_that_was_killed_has_a_report_of_what_ended(tmp_path: Path) -> None:
    tracking = {"uri": None, "experiment": "symnoise_ray"}
    write_json({"name": "quickstart", "tracking": tracking}, tmp_path / SWEEP)
    write_json(_trial(2, "symnoise", 0.61), tmp_path / "trials" / "002-symnoise" / RESULT)
    report.write_report(read_sweep(tmp_path))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Interrupted before its end. 1 trials (1 done)" in text
    assert "The sweep was interrupted before its end, so it gives no verdict." in text
    assert "| 002-symnoise |" in text
