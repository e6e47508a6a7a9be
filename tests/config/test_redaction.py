"""What a process knows to be a secret is in no error that it tells or writes down."""

from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config.redaction import without_secrets
from symnoise_ray.errors import SymnoiseError, UserError, one_line
from symnoise_ray.records.files import read_json
from symnoise_ray.space.trials import TrialPlan
from symnoise_ray.sweep.trial import fail
from symnoise_ray.tracking.mlflow_runs import replay
from tests.tracking.test_events import NOISY, plans_in

TOKEN = "hf_canaryQxR5vTz81"
PASSWORD = "canary%2F8c41"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "OPENAI_API_KEY", "my_password", "AWS_SECRET_ACCESS_KEY", "JUDGE_APIKEY"]
)
def test_the_value_of_a_variable_that_is_called_like_a_secret_is_hidden(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"{TOKEN}\n")
    assert without_secrets(f"refused: {TOKEN}, twice {TOKEN}.") == "refused: ***, twice ***."
    assert without_secrets(f"refused: {TOKEN[:12]}") == "refused: ***", "an error is cut short"
    assert without_secrets("refused: hf_") == "refused: hf_"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "PASSENGERS", "HOME_PATH"])
def test_any_other_variable_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, TOKEN)
    assert without_secrets(f"it says {TOKEN}") == f"it says {TOKEN}"


def test_neither_is_a_short_word_or_the_path_of_a_file_with_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    monkeypatch.setenv("MY_TOKEN", "noise")
    assert without_secrets(f"noise in {tmp_path}") == f"noise in {tmp_path}"


def test_the_password_of_an_address_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@proxy:3128")
    said = f"http://me:{PASSWORD}@proxy:3128 refused me with {PASSWORD}, which is canary/8c41"
    assert without_secrets(said) == "http://me:***@proxy:3128 refused me with ***, which is ***"
    given = "postgresql://me:another-canary@host/db"
    assert without_secrets("wrong: another-canary", given) == "wrong: ***"
    assert without_secrets("wrong: a-canary-1", "https://host/?token=a-canary-1") == "wrong: ***"


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_command_shows_no_secret_that_was_given_in_a_wrong_place(
    debug: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["validate", "quickstart", f"data.template={TOKEN}", *debug]) == 2
    told = capsys.readouterr()
    assert "canary" not in told.out + told.err
    assert told.err.splitlines()[-1].startswith("error: override data.template=")
    assert ("Traceback" in told.err) == bool(debug)


def test_a_failed_trial_writes_down_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    plan: TrialPlan = plans_in(tmp_path / "sweep", "none").search(1, NOISY)
    error = UserError(f"the hub refused {TOKEN}")
    error.add_note(f"headers = {{'authorization': 'Bearer {TOKEN}'}}")
    result = fail(plan, error)
    assert result.reason == "the hub refused ***"
    assert read_json(plan.directory / "trial.json")["reason"] == "the hub refused ***"
    assert "canary" not in (plan.directory / "trial.json").read_text()


def test_a_tracker_whose_error_is_cut_within_the_password_shows_none_of_it(tmp_path: Path) -> None:
    """An error has a limit, and the address may lie across it."""
    long = "a" * 240
    uri = f"nothing+{long}://me:canary-8c41f7d2-canary-1@host/db"
    (tmp_path / "journal.jsonl").write_text(
        '{"kind": "start", "run": "small", "time_ms": 1, "parent": "", "params": {}, "tags": {}}\n'
    )
    with pytest.raises(SymnoiseError, match="not every event could be sent") as told:
        replay(tmp_path, uri, "tests")
    assert "canary" not in one_line(told.value, limit=5000)
