"""What a terminal of 80 columns and 24 lines shows of a sweep, and what a file gets."""

import io
import re
from typing import Any

import pyte
import pytest
from rich.console import Console

from symnoise_ray.records.results import TrialResult
from symnoise_ray.report.board import Board
from symnoise_ray.report.standing import Standing, rows
from symnoise_ray.report.table import trial_table

LONGEST = "confirm-symnoise-seed1000-setting2"
SETTINGS = "symnoise, alpha=5, lr=0.002, epochs=3, warmup=0.03"


def result(name: str, **values: Any) -> TrialResult:
    measured = {"win_rate": 0.521, "interval_95": (0.474, 0.569), "num_steps": 60}
    return TrialResult(name, seconds={"train": 30.0, "judge": 6.0}, values=measured | values)


def board(console: Console, num_ended: int = 30) -> Board:
    """A sweep on its way: two trials run, one is judged, one waits, the others have ended."""
    shown = Board(Console(quiet=True), "a sweep")
    shown.standing.num_searched, shown.standing.by_look = 40, (6, 10)
    shown.standing.num_slots = 2
    shown.standing.slots = {"slot-0": LONGEST, "slot-1": "038-none"}
    shown.standing.spending = lambda: {"trials": (30.0, 50.0)}
    shown.standing.phase = "search"
    for number in range(num_ended):
        name = f"{number:03d}-symnoise"
        shown.start(name, SETTINGS, baseline=False, confirms=False)
        shown.move(name, {"step": 1, "loss": 2.0, "clean_loss": 1.5})
        shown.end(name, result(name))
    for name in ("037-none", "038-none", "039-none", LONGEST):
        shown.start(name, SETTINGS, baseline=False, confirms=name == LONGEST)
    for name in ("037-none", "038-none", LONGEST):
        shown.move(name, {"step": 7, "loss": 2.0, "clean_loss": 1.25})
    shown.judge("037-none")
    shown.console = console
    return shown


def terminal(width: int = 80, height: int = 24, **options: Any) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height,
        _environ={"TERM": "xterm-256color"}, **options,
    )  # fmt: skip


def screen(console: Console, shown: Board) -> list[str]:
    """The lines of a terminal that has been drawn once."""
    with shown:
        assert shown.is_live
        assert isinstance(console.file, io.StringIO)
        shown._live.refresh()  # type: ignore[union-attr]
        drawn = console.file.getvalue()
    found = pyte.Screen(console.width, console.height)
    pyte.Stream(found).feed(drawn.replace("\n", "\r\n"))
    return [line.rstrip() for line in found.display]


@pytest.mark.parametrize("width", [80, 120])
def test_names_are_whole_and_what_runs_comes_first(width: int):
    console = terminal(width)
    lines = screen(console, board(console))
    heading, *trials = [line for line in lines if line]
    assert heading.split()[:1] == ["trial"]
    names = [line.split()[0] for line in trials]
    assert names[:5] == ["038-none", LONGEST, "037-none", "039-none", "029-symnoise"]
    assert [line.split()[-1] for line in trials[:5]] == [
        "running", "running", "judging", "waiting", "done",
    ]  # fmt: skip
    assert all(len(line) <= width for line in lines)
    assert "52.1 % [47.4, 56.9]" in trials[4]


def test_the_last_line_says_how_the_sweep_stands():
    console = terminal()
    lines = [line for line in screen(console, board(console)) if line]
    assert re.fullmatch(
        r"30 of up to 50 done \| 0:00:0\d \| \d+ to \d+ (s|min) left \| search \| trials 30/50",
        lines[-1],
    )
    assert re.fullmatch(r"\.\.\. and \d+ more that have ended or wait", lines[-2])
    assert len(lines) < 24


def test_before_the_first_trial_the_line_says_how_many_slots_are_up():
    console = terminal()
    shown = Board(console, "a sweep")
    assert screen(console, shown)[0].endswith("| time left unknown | starting Ray")
    shown.standing.phase, shown.standing.num_slots = "starting slots", 2
    shown.standing.slots = {"slot-0": ""}
    assert shown.standing.status_line().endswith("| 1 of 2 slots up")


def test_colours_are_left_out_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch):
    assert "\x1b[36m" in drawn(terminal())
    assert "\x1b[36m" not in drawn(terminal(no_color=True))


def drawn(console: Console) -> str:
    with board(console) as shown:
        shown._live.refresh()  # type: ignore[union-attr]
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_dumb_terminal_gets_lines(environment: dict[str, str]):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, _environ=environment, width=80)
    with Board(console, "a sweep") as shown:
        assert not shown.is_live
        shown.start("000-none", "none", baseline=True, confirms=False)
        shown.move("000-none", {"step": 1})
    assert re.fullmatch(r"\d\d:\d\d:\d\d  000-none +started   none\n", file.getvalue())


def test_a_file_gets_one_line_an_event_with_its_time():
    file = io.StringIO()
    with Board(Console(file=file, width=140), "a sweep") as shown:
        shown.start("000-none", "none", baseline=True, confirms=False)
        shown.move("000-none", {"step": 1})
        shown.move("000-none", {"step": 2})
        shown.end("000-none", result("000-none"))
    lines = file.getvalue().splitlines()
    assert len(lines) == 2
    assert all(re.match(r"\d\d:\d\d:\d\d  000-none", line) for line in lines)
    assert "\x1b" not in file.getvalue()


def test_no_name_setting_or_reason_steers_the_terminal():
    evil = "\x1b]0;owned\x07\x1b[2J[red]x[/]"
    console = terminal(160)
    shown = Board(console, "a sweep")
    shown.start("000-none", evil, baseline=False, confirms=False)
    shown.end("000-none", TrialResult("000-none", status="failed", kind="error", reason=evil))
    shown.say(evil)
    shown.summary()
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count(r"\x1b[2J[red]x[/]") == 4, "and no markup is taken for a style"


def test_settings_are_cut_first_and_then_left_out():
    shown = board(terminal(), num_ended=1).standing
    headings = {
        width: [column.header for column in trial_table(rows(shown, shown.slots), width).columns]
        for width in (200, 100, 80, 60, 40)
    }
    assert headings[200] == [
        "trial", "settings", "slot", "step", "clean loss", "wins against the reference, 95 %",
        "status",
    ]  # fmt: skip
    assert "settings" in headings[100]
    assert headings[60] == ["trial", "step", "status"]
    assert headings[40][0] == "trial"


# How long it will take


def ended(seconds: list[float]) -> Standing:
    standing = Standing(num_searched=10, by_look=(6, 10), num_slots=2)
    shown = Board(Console(quiet=True), "a sweep")
    shown.standing = standing
    for number, each in enumerate(seconds):
        shown.start(str(number), "", baseline=False, confirms=False)
        trial = TrialResult(str(number), seconds={"train": each, "start": 1000.0})
        shown.end(str(number), trial)
    return standing


def test_the_time_left_is_between_the_next_look_and_the_last():
    assert ended([]).seconds_left() is None
    assert ended([60.0] * 4).seconds_left() == (12 * 60 / 2, 16 * 60 / 2)
    low, high = ended([30.0, 90.0, 30.0, 90.0]).seconds_left() or (0.0, 0.0)
    assert low < 360 < 480 < high, "trials that take unlike times widen it"


def test_at_a_look_it_is_counted_from_that_one():
    standing = ended([60.0] * 10)
    standing.begin_look(2, 2)
    assert standing.seconds_left() == (300.0, 300.0)
    assert standing.now() == "look 2 of 2"
    standing.paused = True
    assert standing.now() == "paused"
