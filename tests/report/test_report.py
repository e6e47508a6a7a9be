"""The report says everything the results hold, as a page and as Markdown."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import html as lxml_html

from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import RESULT, SWEEP
from symnoise_ray.records.results import read_sweep
from symnoise_ray.report import page
from symnoise_ray.report import write as report
from symnoise_ray.report.reading import reading
from tests.report.made import (
    CHOICE,
    COMPARISON,
    DECISION,
    FAILED,
    HOSTILE,
    content,
    html,
    read,
    results,
    trial,
    write_trial,
)


def _words(text: str) -> str:
    """What a page says without its script."""
    page = lxml_html.document_fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    for unseen in page.xpath("//script | //style | //template"):
        unseen.drop_tree()
    return " ".join(" ".join(page.itertext()).split())


@pytest.mark.parametrize("kind", ["html", "markdown"])
def test_everything_is_told(kind: str) -> None:
    text = _words(html(results())) if kind == "html" else report.markdown(results())
    for row in results().trials:
        assert row.trial in text
    for words in (
        "It is not decided yet.",
        "Finished, but some trials have no result",
        "5 trials (4 done, 1 failed) in 1 min 35 s",
        "the loss is nan at step 31",
        "49.2 to 63.4",
        "about 13",
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
        *reading(results()).paragraphs,
    ):
        assert words in text


def test_markdown_tables_have_equal_rows() -> None:
    widths = []
    for block in report.markdown(results(name=HOSTILE)).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        widths.append({len(re.findall(r"(?<!\\)\|", line)) for line in lines})
    assert sum(bool(width) for width in widths) == 9
    assert all(len(width) <= 1 for width in widths)


def test_trials_are_ranked_and_the_failed_one_is_last() -> None:
    text = report.markdown(results())
    search = text[text.index("## Search") : text.index("## Where")]
    places = [search.index(name) for name in ("002-", "000-", "001-", "003-")]
    assert places == sorted(places)


def test_a_win_rate_of_zero_is_a_result() -> None:
    trials = [FAILED, trial(1, "neftune", 0.0, interval_95=[0.0, 0.0])]
    text = report.markdown(results(trials=trials))
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
    given = content()
    given["verdict"]["decisions"][0]["comparisons"][0] |= _controlled(0.532)
    given["trials"][1] |= _controlled(0.412, longer_rate=0.96)
    given["trials"][2] |= _controlled(0.583, longer_rate=0.95)
    for text in (report.markdown(read(given)), _words(html(read(given)))):
        assert "53.2 (47.2 to 61.2)" in text
        assert "41.2 (35.2 to 49.2), longer on 96.0 %" in text
        assert "58.3 (52.3 to 66.3)" in text
        assert text.count(", longer on ") == 1
    assert "| 000-none (reference) | none | 0.003 | 50.0 | 45.0 to 57.0 | \u2013 |" in (
        report.markdown(read(given))
    )


def test_trials_that_stopped_early_are_told() -> None:
    given = content()
    assert "stopped once the side" not in report.markdown(read(given))
    given["trials"][2]["stopped_early"] = True
    given["trials"][1]["stopped_early"] = False
    text = report.markdown(read(given))
    assert "The judging of 1 of 4 trials stopped once the side of 50 % was decided." in text


def test_what_the_answers_look_like_is_a_table_where_it_is_known() -> None:
    given = content()
    heading = "What the answers look like"
    assert heading not in report.markdown(read(given))
    told = {"num_answers": 9, "length_median": 30.5, "words_mean": 6.25, "repetition_2": 0.015}
    given["trials"][2] |= told | {"refusal_rate": 0.0, "compression_ratio": 2.345}
    text = report.markdown(read(given))
    assert "| 002-symnoise | 30 | 6.2 | 1.5 | \u2013 | 2.35 | \u2013 | 0.0 | \u2013 |" in text
    assert heading in _words(html(read(given)))


def test_html_needs_nothing_from_outside() -> None:
    page = html(results(tracking={"uri": "http://host:5000"}))
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    outside = r"(?i)<(link|img|iframe|object)|\bsrc\s*=|href=\"(?!#)|url\(|@import"
    assert not re.search(outside, own)
    assert "default-src 'none'" in own
    assert "prefers-color-scheme" in own


def test_every_figure_has_a_title_and_a_text_in_its_place() -> None:
    page = lxml_html.document_fromstring(html(results()))
    assert [each.text for each in page.iter("figcaption")] == [
        "Win rates in the confirmation",
        "Win rates in the search",
        "Win rate over the reference against noise.alpha",
        "Win rate against the length of answers",
        "Training loss, with noise by step",
        "Clean loss by step",
        "Curvature by step",
        "Seconds of each trial by phase",
    ]
    texts = [each.get("aria-label") for each in page.xpath("//figure/div")]
    assert all(len(text) > 20 for text in texts)


def test_hostile_text_is_shown_not_run() -> None:
    given = content(name=HOSTILE)
    given["verdict"]["sentence"] = HOSTILE
    (decision,) = given["verdict"]["decisions"]
    hostile = {"label": HOSTILE, "verdict": HOSTILE, "arm": HOSTILE}
    decision |= hostile | {"over": "", "withheld": HOSTILE}
    decision["comparisons"][0] |= hostile | {"against": HOSTILE}
    given["choices"][0] |= {"arm": HOSTILE, "note": HOSTILE}
    given["departures"] = [HOSTILE]
    given["trials"][3] |= {"reason": HOSTILE, "kind": HOSTILE}
    given["trials"][2] |= {"label": HOSTILE, "arm": HOSTILE, "counts": {HOSTILE: 1}}
    page = html(read(given))
    page.encode()
    assert page.count("<script") == page.count("</script>")
    assert "<script>alert" not in page
    told = "<script>alert(\"x\")</script> & 'a' | b c `d`"
    assert _words(page).count(told) >= 10
    text = report.markdown(read(given))
    text.encode()
    assert "<script" not in text
    assert r"&lt;script>" in text
    assert r"&amp; 'a' \| b c \`d\` \*e\* \[f\](g)" in text


def test_underscores_inside_words_stay_plain() -> None:
    given = content()
    given["trials"][3]["reason"] = "raise warmup_ratio, _not_ this"
    assert r"raise warmup_ratio, \_not\_ this" in report.markdown(read(given))


def test_a_password_in_the_tracking_address_is_left_out() -> None:
    tracking = {"uri": "postgresql://me:secret@host/db", "experiment": "e"}
    given = content(tracking=tracking)
    for text in (report.markdown(read(given)), html(read(given), {})):
        assert "secret" not in text
        assert "postgresql://me:***@host/db" in text.replace(r"\*", "*")


def test_bare_results_break_nothing() -> None:
    bare = {"trial": "000-none", "part": "search", "status": "done"}
    for trials in ([], [bare], [FAILED], [bare | {"win_rate": 0.5}]):
        given = {"name": "n", "status": "interrupted", "trials": trials}
        words = _words(html(read(given), {}))
        assert "The sweep ended before a verdict could be given." in words
        assert "Interrupted before its end" in report.markdown(read(given))


def test_no_comparison_is_said_in_words() -> None:
    given = content(verdict={"sentence": "No winner.", "decisions": []})
    for text in (report.markdown(read(given)), _words(html(read(given)))):
        assert "Nothing was compared with plain fine-tuning on fresh seeds" in text


def test_what_was_done_otherwise_than_declared_is_told() -> None:
    told = "part 2, after a verdict: confirm.looks [3] -> [3, 8]"
    for departures, expected in (([], 0), ([told], 1)):
        found = results(departures=departures)
        page = _words(html(found))
        assert page.count(told) == expected
        assert ("Otherwise than declared" in page) is bool(expected)
        assert report.markdown(found).count("## Otherwise than declared") == expected


def test_a_choice_that_was_not_made_by_a_fit_says_how() -> None:
    (candidate,) = CHOICE["candidates"]
    bare = {**candidate, "fitted": None, "band": None}
    raw = CHOICE | {"method": "pairs", "candidates": [bare], "flattered": None, "note": "No judge."}
    text = report.markdown(results(choices=[raw]))
    assert "symnoise: its win rates could not rank its settings, so those were judged" in text
    assert "symnoise: No judge." in text
    assert "exceeds the fit" not in text
    assert "## Choice of settings" not in report.markdown(results(choices=[]))


def test_one_interval_that_leaves_one_half_is_called_no_verdict() -> None:
    """It takes the intervals against both opponents, whichever verdict it is."""
    given = content()
    apart = COMPARISON | {"opponent": "shared", "interval_95": [0.51, 0.66]}
    given["verdict"]["decisions"][0]["comparisons"].append(apart)
    given["verdict"]["effect"] = 0.04
    for text in (report.markdown(read(given)), _words(html(read(given)))):
        assert (
            "it is better if all lie above 50 %, worse if all lie below, and makes no difference "
            "if all lie within 4 points of 50 %."
        ) in text
        assert "so one that leaves 50 % is a verdict" not in text


def test_a_verdict_that_is_withheld_is_marked() -> None:
    given = content()
    given["verdict"]["decisions"][0]["withheld"] = "2 of its 4 trainings failed"
    assert "cannot tell yet (withheld)" in report.markdown(read(given))


@pytest.mark.parametrize("early", [False, True])
def test_all_trials_together_say_which_of_their_rates_are_of_fewer_prompts(early: bool) -> None:
    given = content()
    given["trials"] = [
        trial(2 * block + number, arm, 0.5 + 0.01 * block * number) | {"seed": block}
        for block in range(4)
        for number, arm in enumerate(("none", "symnoise"))
    ]
    given["trials"][1]["stopped_early"] = early
    text = report.markdown(read(given))
    assert "## All trials together" in text
    assert ("The judging of 1 of these trials stopped once they were decided" in text) == early


def test_a_contrast_that_is_withheld_is_marked() -> None:
    given = content()
    compared = [COMPARISON | {"over": "independent", "opponent": "", "against": ""}]
    contrast = DECISION | {"over": "independent", "comparisons": compared}
    given["verdict"]["decisions"].append(contrast | {"withheld": "2 of its 4 trainings failed"})
    text = report.markdown(read(given))
    assert re.search(r"\| independent \| .* \| cannot tell yet \(withheld\) \|\n", text)
    assert text.count("(withheld)") == 1


def test_further_settings_get_a_column() -> None:
    given = content()
    given["trials"][2]["params"]["train.num_epochs"] = 7
    text = report.markdown(read(given))
    assert "| train.num_epochs |" in text
    assert re.search(r"002-symnoise .* 7 \|\n", text)


def test_both_files_are_written(tmp_path: Path) -> None:
    verdicts = {"q1": 2.0, "q2": 1.0, "q3": 1.5, "q4": None}
    write_trial(tmp_path / "trials" / "002-symnoise", "002-symnoise", verdicts)
    report.write_report(read(content(), tmp_path), {})
    assert {path.name for path in tmp_path.iterdir()} == {"trials", "report.html", "report.md"}
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report.markdown(results())


@pytest.mark.parametrize("damage", ["none", "cut", "no file", "no folder"])
def test_figures_scripts_are_cached_and_a_damaged_cache_is_made_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = []

    def bundle(snippet: str) -> str:
        bundled.append(snippet)
        return "one();\r\ntwo('</script>', 'é');"

    monkeypatch.setattr(page.vl_convert, "javascript_bundle", bundle)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if damage == "no folder":
        (tmp_path / "cache").touch()

    def script() -> str:
        page._vega.cache_clear()
        return page._vega()

    try:
        first = script()
        cached = list((tmp_path / "cache").rglob("vega-*.js"))
        if damage == "cut":
            cached[0].write_bytes(cached[0].read_bytes()[:-10])
        if damage == "no file":
            cached[0].unlink()
        assert script() == first == "one();\ntwo('<\\/script>', 'é');"
        assert len(bundled) == (1 if damage == "none" else 2)
        assert len(cached) == (0 if damage == "no folder" else 1)
    finally:
        page._vega.cache_clear()


def test_a_sweep_without_any_trial_file_is_reported(tmp_path: Path) -> None:
    report.write_report(read(content(status="failed", trials=[FAILED]), tmp_path), {})
    assert "the loss is nan at step 31" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["html", "markdown"])
def test_noise_types_against_each_other_are_told_in_points(kind: str) -> None:
    given = content()
    contrast = COMPARISON | {
        "over": "independent",
        "win_rate": 0.509,
        "interval_95": [0.4795, 0.54],
        "opponent": "",
        "against": "",
    }
    decision = DECISION | {"over": "independent", "comparisons": [contrast]}
    given["verdict"]["decisions"].append(decision)
    text = _words(html(read(given))) if kind == "html" else report.markdown(read(given))
    assert "symnoise 6.1, lr 0.0024" in text
    assert "independent" in text
    assert "+1.8" in text
    assert "-4.1 to +8.0" in text.replace("\\", "")
    assert "50.9" not in text


def test_the_time_of_a_sweep_in_parts_is_that_of_its_last_part() -> None:
    text = report.markdown(replace(results(), parts=3))
    assert "5 trials (4 done, 1 failed) in 3 parts, the last of 1 min 35 s" in text


def test_a_sweep_that_was_killed_has_a_report_of_what_ended(tmp_path: Path) -> None:
    tracking = {"uri": None, "experiment": "symnoise_ray"}
    write_json({"name": "quickstart", "tracking": tracking}, tmp_path / SWEEP)
    write_json(trial(2, "symnoise", 0.61), tmp_path / "trials" / "002-symnoise" / RESULT)
    report.write_report(read_sweep(tmp_path), {})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Interrupted before its end. 1 trial (1 done)" in text
    assert "The sweep was interrupted before its end, so it gives no verdict." in text
    assert "| 002-symnoise |" in text
