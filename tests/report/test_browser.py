"""What a reader can do with the page: hover, filter, brush, sort and search, in any light."""

import re
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.report import write as report
from symnoise_ray.report.words import interval, percent
from tests.report.conftest import Open
from tests.report.made import FAILED, content, read, trial, write_trial

VERDICTS = {"q1 of cows": 2.0, "q2 of owls": 1.0, "q3 of cows": 1.5, "q4": None, "q5": 2.0}
SEARCHED = [
    trial(0, "none", 0.5),
    trial(1, "neftune", 0.44, baseline=True),
    trial(2, "symnoise", 0.61),
    trial(10, "symnoise", 0.083),
    FAILED,
]
CONFIRMED = [
    trial(number, "symnoise", 0.57, part="confirm", trial=f"confirm-symnoise-{seed}", seed=seed)
    for number, seed in ((2, 1000), (2, 1001))
]


def _sweep(folder: Path, **values: Any) -> Path:
    """A sweep with its trials' files, and its page."""
    for searched in SEARCHED[:4]:
        write_trial(folder / "trials" / searched["trial"], searched["trial"], {})
    for confirmed in CONFIRMED:
        write_trial(folder / "trials" / confirmed["trial"], confirmed["trial"], VERDICTS)
    given = content(trials=[*SEARCHED, *CONFIRMED], **values)
    report.write_report(read(given, folder), {})
    return folder / "report.html"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _sweep(tmp_path_factory.mktemp("sweep"))


def _column(page: Any, number: int, table: str = "#sweep-1-leaderboard-of-the-search") -> list[str]:
    """What the cells of a column of a section's first table say."""
    cells = page.locator(f"{table} table").first.locator(f"tbody td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def _figure(page: Any, title: str) -> Any:
    return page.locator("figure").filter(has_text=title)


def _centre(mark: Any) -> tuple[float, float]:
    box = mark.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _faint(figure: Any) -> int:
    """Marks of a figure that are not of the chosen trials."""
    marks = figure.locator(".mark-symbol path")
    return sum(mark.get_attribute("opacity") == "0.12" for mark in marks.all())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_it_opens_offline_and_fits(open_page: Open, path: Path, width: int, scheme: str) -> None:
    page = open_page(path, width=width, scheme=scheme)
    assert page.problems == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    figures = page.locator("figure").count()
    assert figures == page.locator("figure svg.marks").count() == 6


def _brightness(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_text_stands_out_in_light_and_dark(
    open_page: Open, path: Path, scheme: str, is_dark: bool
) -> None:
    page = open_page(path, scheme=scheme)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    ground = _brightness(page.evaluate(style.format("body", "backgroundColor")))
    assert (ground < 0.1) is is_dark
    seen = {"p": "color", ".note": "color", "nav a": "color", "th": "color", "svg text": "fill"}
    for selector, attribute in seen.items():
        ink = _brightness(page.evaluate(style.format(selector, attribute)))
        low, high = sorted((ground, ink))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector


def test_the_numbers_of_the_page_are_those_of_the_results(open_page: Open, path: Path) -> None:
    page = open_page(path)
    rated = sorted(SEARCHED[:4], key=lambda row: -row["win_rate"])
    names = [re.sub(r" \(.*", "", name) for name in _column(page, 1)]
    assert names == [row["trial"] for row in rated]
    assert _column(page, 4) == [percent(row["win_rate"]) for row in rated]
    assert _column(page, 5) == [interval(row["interval_95"]) for row in rated]
    marks = _figure(page, "Win rates in the search").locator(".mark-symbol path")
    assert marks.count() == len(rated)
    columns = page.evaluate("window.sweeps[0].columns.trials")
    given = [*SEARCHED, *CONFIRMED]
    for name in ("trial", "arm", "win_rate"):
        assert columns[name] == [row[name] for row in given]
    assert columns["train"] == [row.get("seconds", {}).get("train", 0) for row in given]


def test_hovering_names_the_trial(open_page: Open, path: Path) -> None:
    page = open_page(path)
    for title in ("Win rates in the search", "Win rate against the length"):
        figure = _figure(page, title)
        figure.scroll_into_view_if_needed()
        figure.locator(".mark-symbol path").last.hover()
        told = page.locator("#vg-tooltip-element").inner_text()
        assert any(row["trial"] in told for row in [*SEARCHED, *CONFIRMED])


def test_the_legend_filters_arms_everywhere(open_page: Open, path: Path) -> None:
    page = open_page(path)
    lengths = _figure(page, "Win rate against the length").locator(".mark-symbol path")
    assert lengths.count() == 6
    button = page.get_by_role("button", name="symnoise", exact=True)
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert [name.split("-")[1].split()[0] for name in _column(page, 1)] == ["none", "neftune"]
    assert lengths.count() == 2
    assert page.locator(".told").inner_text() == "3 of 7 trials"
    page.get_by_role("button", name="show all").click()
    assert lengths.count() == 6
    assert len(_column(page, 1)) == 4


def test_a_brush_chooses_trials_in_all_figures_and_tables(open_page: Open, path: Path) -> None:
    page = open_page(path)
    figure = _figure(page, "Win rate over the reference against noise.alpha")
    figure.scroll_into_view_if_needed()
    marks = figure.locator(".mark-symbol path")
    neftune, symnoise = (_centre(marks.nth(number)) for number in (0, 1))
    page.mouse.move(neftune[0] - 8, symnoise[1] - 8)
    page.mouse.down()
    page.mouse.move(symnoise[0] + 8, neftune[1] + 8, steps=8)
    page.mouse.up()
    page.get_by_text("of 7 trials").wait_for()
    names = [name.split(" ")[0] for name in _column(page, 1)]
    assert names == ["002-symnoise", "001-neftune"]
    others = _figure(page, "Win rates in the search")
    others.locator("path[opacity='0.12']").nth(1).wait_for()
    assert _faint(others) == 2
    page.get_by_role("button", name="show all").click()
    others.locator("path[opacity='0.12']").first.wait_for(state="detached")
    assert len(_column(page, 1)) == 4


def test_trials_are_chosen_by_the_keyboard_too(open_page: Open, path: Path) -> None:
    page = open_page(path)
    page.get_by_label("trials").first.fill("NEFTUNE")
    assert [name.split(" ")[0] for name in _column(page, 1)] == ["001-neftune"]
    assert _faint(_figure(page, "Win rates in the search")) == 3


def test_tables_sort_by_numbers_and_by_the_keyboard(open_page: Open, path: Path) -> None:
    page = open_page(path)
    head = page.locator("#sweep-1-leaderboard-of-the-search th").nth(3)
    head.locator("button").focus()
    for order, expected in (
        ("ascending", ["8.3", "44.0", "50.0", "61.0"]),
        ("descending", ["61.0", "50.0", "44.0", "8.3"]),
        (None, ["61.0", "50.0", "44.0", "8.3"]),
    ):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert _column(page, 4) == expected


def test_times_sort_as_times_and_what_is_missing_comes_last(open_page: Open, path: Path) -> None:
    page = open_page(path)
    section = "#sweep-1-where-the-time-went"
    page.locator(f"{section} table").nth(1).locator("th button").nth(1).click()
    cells = page.locator(f"{section} table").nth(1).locator("tbody td:nth-child(2)")
    assert cells.all_inner_texts() == ["40.1 s", "1 min 35 s"]
    page.locator(f"{section} table").first.locator("th button").nth(2).click()
    assert _column(page, 3, section)[-1] == "\u2013"


def _answers(page: Any, **filters: str) -> str:
    for name, value in filters.items():
        field = page.locator(f".filters [name={name}]")
        if name == "words":
            field.fill(value)
        else:
            field.select_option(value)
    return str(page.locator(".answers .count").inner_text())


def test_all_confirmed_answers_can_be_searched_and_filtered(open_page: Open, path: Path) -> None:
    page = open_page(path)
    assert _answers(page) == "10 of 10 answers"
    assert _answers(page, outcome="won") == "4 of 10 answers"
    assert page.locator(".answer .trial.won").count() == 4
    assert _answers(page, outcome="lost") == "2 of 10 answers"
    assert page.locator(".answer .reference.won").count() == 2
    assert _answers(page, outcome="tie") == "2 of 10 answers"
    assert _answers(page, outcome="none") == "2 of 10 answers"
    assert _answers(page, outcome="", words="COWS") == "4 of 10 answers"
    assert _answers(page, seed="1001") == "2 of 10 answers"
    assert page.locator(".answer h3").all_inner_texts() == ["q1 of cows", "q3 of cows"]
    assert page.locator(".answer .gold").first.inner_text() == "gold: gold q1 of cows"
    assert _answers(page, words="nothing like it") == "0 of 10 answers"


def test_answers_can_be_filtered_by_topic_and_arm_and_paged(
    open_page: Open, tmp_path: Path
) -> None:
    trials = [
        trial(2, arm, 0.57, part="confirm", trial=f"confirm-{arm}", seed=1000)
        for arm in ("symnoise", "neftune")
    ]
    for each in trials:
        folder = tmp_path / "trials" / each["trial"]
        write_trial(folder, each["trial"], {f"q{n}": 1.5 for n in range(12)}, topics=3)
    report.write_report(read(content(trials=trials), tmp_path), {})
    page = open_page(tmp_path / "report.html")
    assert page.locator(".answer").count() == 10
    page.locator(".answers .pager").get_by_text("next").click()
    assert page.locator(".answers .pager span").inner_text() == "11 to 20 of 24"
    assert _answers(page, topic="topic 1") == "8 of 24 answers"
    assert _answers(page, arm="neftune") == "4 of 24 answers"


def test_of_several_sweeps_each_has_its_own_choice(open_page: Open, tmp_path: Path) -> None:
    for name in ("one", "two"):
        _sweep(tmp_path / name, name=name)
    found = [read(content(name=n, trials=SEARCHED), tmp_path / n) for n in ("one", "two")]
    report.write_page([(each, {}) for each in found], tmp_path / "both.html")
    page = open_page(tmp_path / "both.html")
    assert page.problems == []
    assert page.locator("h1").all_inner_texts() == ["2 sweeps", "one", "two"]
    page.locator("#sweep-2 button.arm").filter(has_text="symnoise").click()
    leaderboards = "#sweep-{}-leaderboard-of-the-search"
    assert len(_column(page, 1, leaderboards.format(1))) == 4
    assert len(_column(page, 1, leaderboards.format(2))) == 2


def test_ten_thousand_trials_are_paged_and_drawn_by_arm(open_page: Open, tmp_path: Path) -> None:
    trials = [trial(n, "symnoise", n / 10_000) for n in range(1, 10_001)]
    report.write_report(read(content(trials=trials, choices=[]), tmp_path), {})
    path = tmp_path / "report.html"
    assert path.stat().st_size < 8e6
    page = open_page(path)
    assert page.problems == []
    section = page.locator("#sweep-1-leaderboard-of-the-search")
    assert section.locator("tbody").first.locator("tr").count() == 50
    assert section.locator(".pager span").first.inner_text() == "1 to 50 of 10,000"
    section.locator("th button").nth(3).click()
    assert _column(page, 4)[:5] == ["0.0", "0.0", "0.0", "0.0", "0.1"]
    assert page.locator("svg path").count() < 2000
    page.get_by_label("trials").first.fill("9999-")
    assert _column(page, 1) == ["9999-symnoise"]


def test_it_prints_light_whole_and_unfolded(open_page: Open, path: Path) -> None:
    page = open_page(path, width=720, scheme="dark")
    page.emulate_media(media="print")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert _brightness(ground) == pytest.approx(1)
    wide = "[...document.querySelectorAll('table, figure svg')].map(e => {}.right)"
    ends = page.evaluate(wide.format("e.getBoundingClientRect()"))
    assert max(ends) <= 720
    folded = "[...document.querySelectorAll('details')].map(each => each.open)"
    assert not any(page.evaluate(folded))
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(page.evaluate(folded))
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not any(page.evaluate(folded))
