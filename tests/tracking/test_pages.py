"""A finished sweep in the pages that people open: MLflow's and optuna-dashboard's, in a browser."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from symnoise_ray.records.files import read_json, read_lines
from tests.servers.browser import browser
from tests.sweep.test_run import SPACE, tune

__all__ = ["browser"]
pytestmark = [pytest.mark.slow, pytest.mark.nightly]

SIX = SPACE.replace("num_trials: 1", "num_trials: 5").replace(
    "{type: categorical, choices: [0.002]}", "{type: float, low: 0.0005, high: 0.004, log: true}"
)
"""Three trials of each arm, with win rates that differ, and two seeds of each confirmed setting."""
EXPAND = "[data-component-id*='runnamecellrenderer']"
PATIENCE = 240_000
"""Milliseconds for a page to be drawn on a busy machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sweep has ended: out/, mlflow.db, and what it printed."""
    made = tmp_path_factory.mktemp("pages")
    (made / "small.yaml").write_text(SIX)
    run = tune("small.yaml", "--output", "out", cwd=made)
    assert run.returncode == 0, run.stdout + run.stderr
    (made / "stdout.txt").write_text(run.stdout)
    return made


@contextmanager
def served(*command: str) -> Iterator[str]:
    """A server for the time of a block, by its command with `{port}`; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name(command[0])
    process = subprocess.Popen(
        [program, *(word.format(port=port) for word in command[1:])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while not _answers(address):
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.5)
        yield address
    finally:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.terminate()
        process.wait(60)


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):
            return True
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def mlflow_address(folder: Path) -> Iterator[str]:
    store = f"sqlite:///{folder / 'mlflow.db'}"
    with served("mlflow", "ui", "--workers=1", "--port={port}", "--backend-store-uri", store) as at:
        yield at


@pytest.fixture(scope="module")
def experiment(folder: Path, mlflow_address: str) -> str:
    """The page of the experiment, as far as its addresses begin alike."""
    printed = re.search(r"http://127\.0\.0\.1:5000(/#/experiments/\d+)", stdout(folder))
    assert printed is not None
    return mlflow_address + printed[1]


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1700, "height": 1000})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def stdout(folder: Path) -> str:
    return (folder / "stdout.txt").read_text()


def shows(page: Any, *texts: str) -> None:
    """Wait until a page shows all of these."""
    for text in texts:
        page.get_by_text(text, exact=True).first.wait_for()


def body(page: Any) -> str:
    return str(page.inner_text("body"))


def test_what_a_sweep_prints_opens_the_view_of_its_confirmation(
    folder: Path, mlflow_address: str, page: Any
):
    printed = re.search(r"then open http://127\.0\.0\.1:5000(\S+)", stdout(folder))
    assert printed is not None
    page.goto(mlflow_address + printed[1])
    shows(page, "Confirmation (small-out)")
    for arm in ("none", "symnoise"):
        shows(page, *(f"small-out/confirm-{arm}{seed}" for seed in ("", "-seed1000", "-seed1001")))
    shows(page, "verdict/win_rate", "verdict/win_rate_low", "verdict/win_rate_high")
    assert "small-out/000-none" not in body(page)


def test_runs_nest_and_open_and_name_their_data(experiment: str, page: Any):
    page.goto(f"{experiment}/runs?workflowType=machine_learning")
    shows(page, "small-out")
    assert re.search(r"train\.jsonl \(\w{8}\)\s*Training", body(page))
    assert re.search(r"eval\.jsonl \(\w{8}\)\s*Evaluation", body(page))
    assert "small-out/confirm-none" not in body(page)
    page.locator(EXPAND).first.click()
    shows(page, "small-out/000-none", "small-out/005-symnoise", "small-out/confirm-none")
    assert "small-out/confirm-none-seed1000" not in body(page)
    row = page.locator(".ag-row", has=page.get_by_text("small-out/confirm-none", exact=True))
    row.locator(EXPAND).first.click()
    shows(page, "small-out/confirm-none-seed1000", "small-out/confirm-none-seed1001")


def test_the_saved_view_lists_the_search_by_win_rate(folder: Path, experiment: str, page: Any):
    page.goto(f"{experiment}/runs?workflowType=machine_learning")
    shows(page, "Views")
    page.get_by_text("Views", exact=True).first.click()
    page.get_by_text("Search by win rate (small-out)").first.click()
    shows(page, "Sort: judge/win_rate", "small-out/005-symnoise")
    trials = read_json(folder / "out" / "results.json")["trials"]
    rates = {each["trial"]: each["win_rate"] for each in trials if each["part"] == "search"}
    rows = page.eval_on_selector_all(
        ".ag-row", "rows => rows.map(row => [row.getBoundingClientRect().top, row.innerText])"
    )
    names = re.findall(r"small-out/(\d{3}-\w+)", "\n".join(text for _, text in sorted(rows)))
    assert sorted(names) == sorted(rates)
    assert len(set(rates.values())) > 2
    assert [rates[name] for name in names] == sorted(rates.values(), reverse=True)


def test_the_page_of_a_trial_has_its_metrics_in_groups(experiment: str, page: Any):
    page.goto(f"{experiment}/runs?workflowType=machine_learning")
    page.locator(EXPAND).first.click()
    page.get_by_text("small-out/001-symnoise", exact=True).first.click()
    page.get_by_text("Model metrics", exact=True).first.click()
    shows(page, "answers", "cost", "eval", "judge", "seconds", "train")


def test_the_sweeps_description_leads_to_answers_side_by_side(
    folder: Path, experiment: str, page: Any
):
    page.goto(f"{experiment}/runs?workflowType=machine_learning")
    page.get_by_text("small-out", exact=True).first.click()
    verdict = read_json(folder / "out" / "results.json")["verdict"]["sentence"]
    page.get_by_text(verdict[:60]).first.wait_for()
    pair = ("confirm-symnoise-seed1000", "confirm-none-seed1000")
    with page.expect_popup() as opened:
        page.get_by_text(" beside ".join(pair)).first.click()
    opened.value.set_default_timeout(PATIENCE)
    names = [f"small-out/{name}" for name in pair]
    shows(opened.value, "compare to", *names, "24 of 24", "verdict", "AVG")
    answers = {
        name: read_lines(folder / "out" / "trials" / name / "completions.jsonl") for name in pair
    }
    shown = body(opened.value)
    for row, other in zip(*answers.values(), strict=True):
        if row["instruction"] in shown:
            assert row["output"] in shown
            assert other["output"] in shown
            return
    pytest.fail("no prompt is shown")


def test_optuna_dashboard_shows_the_study(folder: Path, page: Any):
    store = f"sqlite:///{folder / 'out' / 'optuna.db'}"
    with served("optuna-dashboard", store, "--port={port}") as at:
        page.goto(f"{at}/dashboard/studies/1")
        shows(page, "win rate", "Hyperparameter Importance")
        page.goto(f"{at}/dashboard/studies/1/trials")
        page.get_by_text(re.compile(r"^00\d-symnoise$")).first.wait_for()
        assert re.search(r"wins: \d+\.\d %, 95 % interval", body(page))
