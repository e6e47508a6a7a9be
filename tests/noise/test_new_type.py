"""A noise type is one row of the table: with a row added, everything else takes it as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.config.loading import load_sweep, load_trial, schema
from symnoise_ray.errors import UserError
from symnoise_ray.noise.types import NOISES, UNIFORM, Copy, Noise, is_paired, num_copies
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.report import rate_figures
from symnoise_ray.report.colours import arms_of
from symnoise_ray.space.check import check_sweep
from symnoise_ray.training.loop import train

NEW = "triplet"
COPIES = (Copy(+1), Copy(-1), Copy(0))
SPACE = f"""
name: new
trial: {{data: {{train: demo}}, train: {{probe_alpha: 1}}}}
parameters:
  noise.type: {{type: categorical, choices: [none, symnoise, {NEW}]}}
  noise.alpha: {{type: float, low: 1, high: 9, when: {{noise.type: [symnoise, {NEW}]}}}}
baselines: [{{noise.type: none}}, {{noise.type: {NEW}, noise.alpha: 5}}]
search: {{num_trials: 4}}
confirm: {{arms: 1, contrasts: [[symnoise, {NEW}]]}}
"""
Trial = Callable[..., TrialConfig]


@pytest.fixture(autouse=True)
def new_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that a new type is: uniform noise on two of three copies."""
    monkeypatch.setitem(NOISES, NEW, Noise(UNIFORM, COPIES))


def listed(tree: Any) -> list[list[str]]:
    """Every list of noise types in a schema."""
    if isinstance(tree, list):
        return [found for part in tree for found in listed(part)]
    if not isinstance(tree, dict):
        return []
    own = [tree["enum"]] if "symnoise" in tree.get("enum", ()) else []
    return own + [found for part in tree.values() for found in listed(part)]


def test_configurations_and_the_schema_take_it(tmp_path: Path) -> None:
    space = tmp_path / "new.yaml"
    space.write_text(SPACE)
    check_sweep(*load_sweep(str(space)))
    types = listed(schema())
    assert len(types) >= 2, "noise.type, and the two of a contrast"
    assert all(names == list(NOISES) and NEW in names for names in types)


def test_an_unknown_type_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text("noise: {type: triple}")
    with pytest.raises(UserError, match=rf"noise\.type: input should be 'none', .* or '{NEW}'"):
        load_trial(file)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("execution", ["sequential", "concat"])
def test_it_is_trained_as_it_was_forecast(trial: Trial, execution: str) -> None:
    config = trial(
        noise__type=NEW,
        noise__alpha=5.0,
        noise__execution=execution,
        train__compute_match="samples",
        train__max_steps=9,
    )
    need = forecast(config, 1, Options())
    assert need.copies == ((3,) if execution == "concat" else (1, 1, 1))
    assert sum(need.copies) == num_copies(config.noise) == len(COPIES)
    records: list[dict[str, Any]] = []
    trained = train(config, records.append)
    trained.release()
    assert trained.summary["num_steps"] == need.num_steps == 3
    assert trained.summary["num_passed_rows"] == 3 * len(COPIES) * config.train.global_batch_size
    assert trained.summary["clean_loss"] < records[0]["clean_loss"]


def test_the_report_draws_it_with_the_mark_of_pairs() -> None:
    assert is_paired(NEW)
    arms = arms_of(["neftune", NEW])
    assert {arm.name: arm.mark for arm in arms} == {"neftune": "circle", NEW: "diamond"}
    for drawn in (rate_figures.searched(arms, 2), rate_figures.by_setting(arms, 0, "alpha", 2)):
        text = json.dumps(drawn.chart)
        assert NEW in text
        assert "diamond" in text
