"""AlpacaEval's published leaderboards come out of its annotations, model by model."""

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symnoise_ray.judges.judging import is_switched
from symnoise_ray.judges.logprobs import log_probability_preference
from symnoise_ray.records.files import write_json
from symnoise_ray.records.preferences import Preference, read_annotations, verdict
from symnoise_ray.statistics.length_control import GamedRows, Items, _rates, fit_length
from symnoise_ray.statistics.win_rate import AlpacaEvalModel, WinRate, win_rate

FEW = 20
"""Replicates where no interval is looked at."""

# Telling cases: published length-controlled win rate, and what they are there for.
TELLING_2 = {
    "NullModel": 86.458,  # the constant-output attack
    "FuseChat-Llama-3.1-8B-Instruct": 65.386,  # long answers, yet better at equal lengths
    "gpt4_1106_preview": 50.0,  # the reference against itself
    "claude-instant-1.2": 25.612,
    "Mixtral-8x7B-Instruct-v0.1_concise": 22.963,
    "gpt35_turbo_instruct": 17.728,  # 804 rows
    "humpback-llama2-70b": 16.249,  # more draws than equal texts
    "gpt-3.5-turbo-1106_concise": 15.770,  # short answers
    "wizardlm-13b": 9.828,  # hardly any penalty
    "vicuna-7b-v1.5": 7.617,
    "alpaca-7b_verbose": 6.816,  # 802 rows
    "alpaca-7b": 5.875,
    "pythia-12b-mix-sft": 4.221,
}
# Failed verdicts (null), and draws, of which the older files store some as 0.
TELLING_1 = {
    "gpt35_turbo_instruct": (4, 25),
    "evo-7b": (2, 8),
    "claude-2": (1, 1),
    "wizardlm-13b": (1, 9),
    "gpt4_0314": (0, 14),
    "gpt-3.5-turbo-0301": (1, 5),
    "ultralm-13b-v2.0": (3, None),
    "claude2-alpaca-13b": (3, None),
}


@functools.cache
def load(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def files(shared_data: Path, version: str) -> list[dict[str, Any]]:
    """All models of one AlpacaEval version."""
    paths = sorted((shared_data / "judge" / version).glob("*.json.gz"))
    if not paths:
        pytest.skip(f"no judge/{version}/*.json.gz in {shared_data}")
    return [load(path) for path in paths]


def known(shared_data: Path) -> tuple[Any, GamedRows]:
    """Difficulty of the 805 instructions, and the gamed rows."""
    instructions = load(shared_data / "judge" / "instructions_805.json.gz")["instructions"]
    rows = load(shared_data / "judge" / "df_gamed_reconstructed.json.gz")
    difficulty = np.array([row["difficulty"] for row in instructions])
    gamed = GamedRows(
        np.array(rows["preference"]), np.array(rows["std_delta_len"]), np.tile(difficulty, 2)
    )
    return difficulty, gamed


def preferences(row: dict[str, Any]) -> list[Preference]:
    """A file's verdicts, with answers of its lengths."""
    columns = (row[name] for name in ("index", "preference", "len_1", "len_2"))
    names = ("reference", row["model"], row["annotator"])
    return [
        Preference(
            item, f"{item}", "", "r" * len_1, names[0], "t" * len_2, *names[1:], "", verdict(value)
        )
        for item, value, len_1, len_2 in zip(*columns, strict=True)
    ]


def length_items(row: dict[str, Any], difficulty: Any, gamed: GamedRows) -> Items:
    """What AlpacaEval fits: where rows are missing, it takes the difficulty by position."""
    values = [verdict(value) for value in row["preference"]]
    scores = np.array([np.nan if value is None else value - 1 for value in values])
    deltas = np.array(row["len_1"], dtype=float) - np.array(row["len_2"])
    return Items(scores, deltas, difficulty[: len(scores)], gamed)


def assert_as_published(rate: WinRate, row: dict[str, Any]) -> None:
    published, model = row["published"], row["model"]
    assert 100 * rate.win_rate == pytest.approx(published["win_rate"], abs=1e-9), model
    assert 100 * rate.standard_error == pytest.approx(published["standard_error"], abs=1e-9), model
    discrete = published["discrete_win_rate"]
    assert 100 * rate.discrete_win_rate == pytest.approx(discrete, abs=1e-9), model
    counts = (rate.n_wins, rate.n_wins_reference, rate.n_draws, rate.n_total)
    names = ("n_wins", "n_wins_base", "n_draws", "n_total")
    assert counts == tuple(int(published[name]) for name in names), model
    missing = 805 - len(row["index"])
    assert abs(int(rate.avg_length) - published["avg_length"]) <= (2 if missing else 0), model


@pytest.mark.parametrize("version", ["ae1", "ae2"])
def test_every_published_row_comes_out_of_its_annotations(version: str, shared_data: Path) -> None:
    rows = [row for row in files(shared_data, version) if row["published"]]
    assert len(rows) >= 25
    for row in rows:
        assert_as_published(win_rate(preferences(row), num_replicates=FEW), row)


@pytest.mark.parametrize("model", TELLING_1)
def test_failed_verdicts_and_old_ties_are_counted(model: str, shared_data: Path) -> None:
    (row,) = [row for row in files(shared_data, "ae1") if row["model"] == model]
    num_failed, num_draws = TELLING_1[model]
    rate = win_rate(preferences(row), num_replicates=FEW)
    assert rate.n_invalid == num_failed
    assert rate.n_total + rate.n_invalid == len(row["index"])
    if num_draws is not None:
        assert rate.n_draws == num_draws


def test_every_published_length_controlled_rate_comes_out_at_its_strength(
    shared_data: Path,
) -> None:
    data, errors = known(shared_data), {}
    for row in files(shared_data, "ae2"):
        if row.get("published_C"):
            model = fit_length(length_items(row, *data), row["published_C"])
            published = row["published"]["length_controlled_winrate"]
            errors[row["model"]] = abs(100 * model.win_rate - published)
    assert len(errors) >= 27
    assert max(errors.values()) < 0.02, errors


def test_the_fit_agrees_with_alpaca_evals_own_solver(shared_data: Path) -> None:
    data, errors = known(shared_data), {}
    for row in files(shared_data, "ae2"):
        if row.get("peer_C"):
            model = fit_length(length_items(row, *data), row["peer_C"])
            peer = row["peer_recomputed"]["length_controlled_winrate"]
            errors[row["model"]] = abs(100 * model.win_rate - peer)
    assert len(errors) >= 29
    assert max(errors.values()) < 0.02, errors


def test_published_coefficients_give_the_published_rates(shared_data: Path) -> None:
    data, checked = known(shared_data), 0
    for row in files(shared_data, "ae2"):
        weights = row.get("published_glm_weights")
        if row["published"] and weights and row["model"] != "NullModel":  # its row is stale
            items = length_items(row, *data)
            coefficients = [0.0, weights["instruction_difficulty"], weights["intercept"]]
            (rate,) = _rates(items, np.array([coefficients]), np.ones((1, len(items.scores))))
            published = row["published"]["length_controlled_winrate"]
            assert 100 * rate == pytest.approx(published, abs=1e-8), row["model"]
            checked += 1
    assert checked >= 28


@pytest.mark.parametrize("model", TELLING_2)
def test_telling_cases_have_their_published_length_controlled_rate(
    model: str, shared_data: Path
) -> None:
    (row,) = [row for row in files(shared_data, "ae2") if row["model"] == model]
    strength = row.get("published_C") or row.get("peer_C") or 21.544
    fitted = fit_length(length_items(row, *known(shared_data)), strength)
    assert 100 * fitted.win_rate == pytest.approx(TELLING_2[model], abs=0.02)


def test_log_probabilities_give_the_stored_preferences(shared_data: Path) -> None:
    instructions = load(shared_data / "judge" / "instructions_805.json.gz")["instructions"]
    assert [is_switched(row["instruction"]) for row in instructions] == [
        row["switched_seed0"] for row in instructions
    ]
    checked = 0
    with_tokens = [row for row in files(shared_data, "ae2") if "logprob_m_M_text" in row]
    for row in with_tokens:
        columns = (row[name] for name in ("index", "preference", "logprob_m_M_text"))
        for index, stored, tokens in zip(*columns, strict=True):
            if tokens is not None and index not in row["same"]:
                switched = instructions[index]["switched_seed0"]
                value = log_probability_preference(tokens[0], tokens[1], switched=switched)
                assert value == pytest.approx(stored, abs=1e-9), (row["model"], index)
                checked += 1
    assert checked > 15_000


def test_a_whole_annotations_file_is_scored_as_published(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "judge"
    rows = load(folder / "full_ae2_alpaca-7b.json.gz")["rows"]
    references = load(folder / "reference_outputs.json.gz")["gpt4_1106_preview"]
    instructions = load(folder / "instructions_805.json.gz")["instructions"]
    whole = [
        {**row, "instruction": about["instruction"], "output_1": reference}
        for row, about, reference in zip(rows, instructions, references, strict=True)
    ]
    write_json(whole, tmp_path / "annotations.json")
    (row,) = [row for row in files(shared_data, "ae2") if row["model"] == "alpaca-7b"]
    alpaca_eval = AlpacaEvalModel(*known(shared_data), row["published_C"])
    rate = win_rate(read_annotations(tmp_path / "annotations.json"), alpaca_eval, FEW)
    assert_as_published(rate, row)
    published = row["published"]["length_controlled_winrate"]
    assert 100 * rate.length_controlled_win_rate == pytest.approx(published, abs=0.02)
    low, high = rate.length_controlled_interval_95
    assert low < rate.length_controlled_win_rate < high
