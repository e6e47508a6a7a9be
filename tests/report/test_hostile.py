"""What a model or a person wrote is shown as text, whatever it holds, and runs nowhere."""

import itertools
import re
from pathlib import Path

import pytest

from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.preferences import Preference
from symnoise_ray.report import write as report
from symnoise_ray.report.section import LONGEST, shortened
from tests.report.conftest import Open
from tests.report.made import content, read, trial

RUNS = "window.hacked=1;alert(1)"
PAYLOADS = (
    f"<script>{RUNS}</script>",
    f"</script><script>{RUNS}</script>",
    f"</style><script>{RUNS}</script>",
    f'</svg><svg onload="{RUNS}">',
    f"<img src=x onerror='{RUNS}'>",
    f'"><iframe srcdoc="<script>{RUNS}</script>">',
    "{{ 7 * 7 }}{% raw %}{# #}",
    "${7*7} #{7*7} <%= 7*7 %>",
    f"[click](javascript:{RUNS}) ![x](http://host/x.png)",
    "| a | b |\n|---|---|\n# heading\n```",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202egnorw eht\u202c \u200f\u2067x\u2069",
    "\x00\ud800\ufffe &lt;b&gt; &amp;",
    "<!--<script> ]]> <![CDATA[ -->",
    "</template></article></section></main></body></html>",
    "\\u003c/script\\u003e \\",
    "\u2028\u2029__proto__ constructor",
    f"' onmouseover='{RUNS}' x='",
    "a" * 100_000,
    "\u05d0\u05d1\u05d2 " * 50,
)
AROUND = ("{}", "x{}y", "{}\n\n{}", " {} ", "'{}'", '"{}"', "<b>{}", "{}</b>", "`{}`", "*{}*")
TEXTS = [around.replace("{}", payload) for around, payload in itertools.product(AROUND, PAYLOADS)]
HUGE = f"<script>{RUNS}</script>" * 300_000


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in which everything that is free text is hostile, and its reports."""
    folder = tmp_path_factory.mktemp("hostile")
    confirmed = trial(2, "symnoise", 0.57, part="confirm", trial="confirm-symnoise", seed=1000)
    place = folder / "trials" / confirmed["trial"]
    texts = [*TEXTS, HUGE]
    write_lines((Completion(t, t, "x", gold=t) for t in texts), place / "completions.jsonl")
    write_lines(
        (
            Preference(n, f"{n} {t}", t[:50], t, t[:50], t, t[:50], "judge", order, 2.0)
            for n, t in enumerate(texts)
            for order in ("reference first", "trial first")
        ),
        place / "preferences.jsonl",
    )
    failed = [
        trial(n, t[:60], 0) | {"win_rate": None, "status": "failed", "reason": t, "kind": t[:60]}
        for n, t in enumerate(TEXTS)
    ]
    odd = [trial(n, t[:60], 0.4 + n / 2000, trial=f"{n} {t[:60]}") for n, t in enumerate(TEXTS)]
    given = content(trials=[*odd, *failed, confirmed], choices=[], name=TEXTS[1])
    given["verdict"]["sentence"] = TEXTS[2]
    report.write_report(read(given, folder), {})
    return folder


def test_two_hundred_hostile_texts_and_a_huge_one_are_given() -> None:
    assert len(set(TEXTS)) == 200
    assert len(HUGE) > 10_000_000


@pytest.mark.slow
def test_the_page_shows_hostile_answers_as_they_are(open_page: Open, sweep: Path) -> None:
    page = open_page(sweep / "report.html")
    assert page.problems == []
    assert page.evaluate("window.hacked") is None
    assert page.locator("iframe, main img, form[action], object").count() == 0
    assert page.locator(".answers .count").inner_text() == "201 of 201 answers"
    shown = []
    for _ in range(21):
        shown += page.locator(".answer .trial p").all_text_contents()
        button = page.locator(".answers .pager").get_by_text("next")
        if button.is_enabled():
            button.click()
    assert shown == [shortened(text) if text.strip() else "no text" for text in [*TEXTS, HUGE]]
    assert page.problems == []


def test_hostile_names_and_reasons_stay_in_their_cells(open_page: Open, sweep: Path) -> None:
    page = open_page(sweep / "report.html", width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    section = page.locator("#sweep-1-failures")
    assert section.locator(".pager span").inner_text() == "1 to 50 of 200"
    reasons = section.locator("tbody td:nth-child(5)").all_text_contents()
    assert [r.strip() for r in reasons] == [shortened(text).strip() for text in TEXTS[:50]]
    page.get_by_label("trials").first.fill("script")
    page.locator("button.arm").first.click()
    assert page.evaluate("window.hacked") is None
    assert page.problems == []


def test_a_huge_answer_is_cut_and_the_page_stays_small(sweep: Path) -> None:
    page = (sweep / "report.html").read_text(encoding="utf-8")
    assert len(page) < 8_000_000
    assert f"({len(HUGE):,} characters in all)" in page
    assert shortened(HUGE).startswith(HUGE[:LONGEST])
    assert shortened("a" * LONGEST) == "a" * LONGEST


def test_markdown_stays_one_table_row_a_trial(sweep: Path) -> None:
    text = (sweep / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
    assert not re.search(r"(?<!\\)\[click(?<!\\)\]\(", text)
    assert not re.search(r"<[a-z/!]", text)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert sum("diverged" in row or "failed" in row for row in rows) >= len(TEXTS)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert all(re.match(r"##? [A-Za-z\\&]", line) for line in headings)
