"""Overrides: every verb reads them alike, and a key in the wrong place is never shown."""

from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config.redaction import redacted

CANARY = "sk-canary-7f3a9b51c04e"
VERBS = {
    "tune": ["tune", "quickstart", "--output", "run"],
    "tune, which goes on": ["tune", "quickstart", "--resume", "--output", "run"],
    "validate": ["validate", "quickstart"],
    "plan": ["plan", "quickstart"],
    "plan of a trial": ["plan", "trial.yaml"],
    "inspect": ["inspect", "--rows=1"],
    "inspect of a trial": ["inspect", "trial.yaml"],
    "inspect of a space": ["inspect", "quickstart"],
    "train": ["train", "trial.yaml", "--output", "trained"],
    "generate": ["generate", "trial.yaml", "--output", "answers.jsonl"],
    "judge": ["judge", "own.jsonl", "--reference", "other.jsonl", "--output", "out.jsonl"],
}
"""Every command that takes overrides; the override comes behind the second word."""
MISPLACED = [
    "judge.api_key=<key>",
    "judge.api_key =<key>",
    "judge.api_key.x=<key>",
    "judge.api_key=[<key>",
    "judge.api_key='<key>",
    "judge.api_key=*<key>",
    "judge.api_key: <key>",
    "judge.api_key:<key>",
    "judge.api_key_env=<key>",
    "judge.api_key_env=[<key>]",
    "judge.api_key_file={<key>: 1}",
    "judge.bearer=<key>",
    "judge.bearer=[<key>",
    "judge.type.api_key=<key>",
    "judge=<key>",
    "judge=[<key>",
    "judge={api_key: <key>}",
    "judge={api_key: <key>",
    "judge={api_key_env: <key>}",
    "judge={type: api, model: m, 'api_key': <key>}",
    "trial.judge=<key>",
    "trial={judge: {api_key: <key>}}",
    "api_key=<key>",
    "api_key=[<key>",
    "api_key.judge=<key>",
    "OPENAI_API_KEY=<key>",
    "openai.token=<key>",
    "model.auth=<key>",
    "parameters.judge.api_key=<key>",
    "parameters.judge.key=<key>",
    "baselines=[{judge.api_key: <key>}]",
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("command", VERBS.values(), ids=VERBS)
def test_a_misplaced_key_is_refused_and_not_shown(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trial.yaml").write_text("data: {max_eval_prompts: 2}\n")
    for override in MISPLACED:
        status = main([*command[:2], override.replace("<key>", CANARY), *command[2:]])
        shown = capfd.readouterr()
        assert status == 2, override
        assert shown.err.startswith("error: "), override
        assert len(shown.err.splitlines()) == 1, override
        assert "canary" not in shown.out + shown.err, override
    assert [path.name for path in tmp_path.iterdir()] == ["trial.yaml"], "nothing was written"


@pytest.mark.parametrize(
    "command",
    [
        ["train", "MISPLACED", "--output", "trained"],
        ["generate", "MISPLACED", "--output", "answers.jsonl"],
        ["judge", "MISPLACED", "--reference", "other.jsonl", "--output", "out.jsonl"],
        ["validate", "MISPLACED"],
        ["inspect", "MISPLACED"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("override", ["judge.api_key=<key>", "judge.api_key: <key>"])
def test_so_is_one_that_stands_where_a_file_should(
    command: list[str], override: str, capfd: pytest.CaptureFixture[str]
) -> None:
    misplaced = override.replace("<key>", CANARY)
    assert main([misplaced if word == "MISPLACED" else word for word in command]) == 2
    shown = capfd.readouterr()
    assert shown.err.startswith("error: ")
    assert "canary" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("judge.api_key=x", "judge.api_key=..."),
        ("a.api_key.b=x", "a.api_key.b=..."),
        ("judge=x", "judge=..."),
        ("judge.bearer=x", "judge.bearer=..."),
        ("trial={judge: {'api_key': x}}", "trial=..."),
        ("api_key: x", "api_key:..."),
        ("tracking.uri=http://me:x@host", "tracking.uri=http://me:***@host"),
        ("tracking={uri: 'mysql://me:x@host'}", "tracking={uri: 'mysql://me:***@host'}"),
        ("judge.model=x", "judge.model=x"),
        ("judge.max_total_tokens=x", "judge.max_total_tokens=x"),
        ("judge.tokens_per_minute=x", "judge.tokens_per_minute=x"),
        ("generate.max_new_tokens=x", "generate.max_new_tokens=x"),
        ("train.seed=x", "train.seed=x"),
        ("data.train=monkeys.json", "data.train=monkeys.json"),
        ("train={seed: 1}", "train={seed: 1}"),
        ("api_key", "api_key"),
        ("=x", "=x"),
    ],
)
def test_only_a_value_that_may_be_a_secret_is_left_out(override: str, shown: str) -> None:
    assert redacted(override) == shown
