"""What is checked before anything starts: as strictly as the stages will ask, and soon."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config.loading import load_trial
from symnoise_ray.errors import DataError, UserError
from symnoise_ray.judges.judging import judge_all
from symnoise_ray.judges.reference import ReferenceJudge
from symnoise_ray.preflight.inputs import check_inputs, prepare
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.space.counts import size_text

# A reference from a file

ASKED = [
    {"turns": ["Name a colour.", "And another."], "reference": ["red", "blue"]},
    {"turns": ["And another."], "reference": ["two"]},
]
TALK = Completion("And another.", "green", "a file", turns=(("Name a colour.", "yellow"),))
ALONE = Completion("And another.", "one", "a file")


def compared(folder: Path, reference: list[Completion]) -> Path:
    """A trial on prompts in turns, judged against a file."""
    (folder / "prompts.json").write_text(json.dumps(ASKED))
    write_lines(reference, folder / "reference.jsonl")
    trial = folder / "trial.yaml"
    trial.write_text(
        f"data: {{eval_prompts: {folder}/prompts.json, max_train_rows: 4}}\n"
        f"judge: {{reference: {folder}/reference.jsonl}}\n"
    )
    return trial


@pytest.mark.parametrize(
    ("reference", "lacks"), [([TALK, ALONE], 0), ([ALONE, TALK], 0), ([ALONE], 1), ([TALK], 1)]
)
def test_a_reference_file_is_checked_as_strictly_as_it_is_judged(
    reference: list[Completion], lacks: int, tmp_path: Path
):
    own = [answer._replace(output="mine", gold="blue") for answer in (TALK, ALONE)]
    config = load_trial(compared(tmp_path, reference), [])
    if not lacks:
        check_inputs([config])
        assert judge_all(ReferenceJudge(), own, reference).num_items == 2
        return
    message = f"lacks {lacks} of 2, the first being 'And another.'"
    with pytest.raises(DataError, match=f"must answer every evaluation prompt, but {message}"):
        check_inputs([config])
    with pytest.raises(DataError, match=f"must answer every prompt, but {message}"):
        judge_all(ReferenceJudge(), own, reference)


def test_trials_that_nobody_judges_need_neither_gold_answers_nor_a_reference(tmp_path: Path):
    trial = compared(tmp_path, [ALONE])
    (tmp_path / "open.jsonl").write_text('{"turns": ["And another."]}\n')
    config = load_trial(trial, [f"data.eval_prompts={tmp_path}/open.jsonl"])
    with pytest.raises(DataError, match=r"a gold answer\); only judge\.type=reference needs gold"):
        check_inputs([config])
    check_inputs([config], judged=False)


def test_a_reference_file_answers_the_prompts_that_a_trial_is_asked(tmp_path: Path):
    trial = compared(tmp_path, [ALONE])
    (tmp_path / "alone.json").write_text(json.dumps(ASKED[1:]))
    given = [f"data.confirm_prompts={tmp_path}/alone.json", "data.prompts=confirm"]
    check_inputs([load_trial(trial, given)])


def test_a_reference_file_need_not_answer_the_prompts_of_the_confirmation(tmp_path: Path):
    """Confirmed settings are judged against plain fine-tuning on the same fresh seed."""
    rows = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(8)]
    for name, part in (("eval", rows[:4]), ("confirm", rows[4:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    answers = [Completion(row["instruction"], "a word", "a file") for row in rows[:4]]
    write_lines(answers, tmp_path / "reference.jsonl")
    sweep = prepare(
        "quickstart",
        [
            f"data.eval_prompts={tmp_path}/eval.json",
            f"data.confirm_prompts={tmp_path}/confirm.json",
            f"judge.reference={tmp_path}/reference.jsonl",
        ],
    )
    assert sweep.confirm.arms > 0


@pytest.mark.parametrize(("count", "settings"), [(2, []), (40, ["data.max_eval_prompts=1"])])
def test_a_confirmation_on_one_prompt_is_refused(count: int, settings: list[str], tmp_path: Path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(
        json.dumps([{"instruction": f"Say {n}.", "output": "x"} for n in range(count)])
    )
    told = (
        r"must leave at least 2 prompts for the confirmation, but data\.confirm_share .* leave 1;"
    )
    with pytest.raises(DataError, match=rf"prompts\.json: {told} add prompts or raise them"):
        prepare("quickstart", [f"data.eval_prompts={prompts}", *settings])


def test_a_column_of_groups_that_is_missing_is_told_before_the_first_trial():
    with pytest.raises(DataError, match=r"jsonl:1: data\.group_field takes .* the column subject"):
        prepare("quickstart", ["data.group_field=subject"])


def test_files_that_only_searched_trials_read_are_checked_before_the_first_trial(tmp_path: Path):
    (tmp_path / "two.yaml").write_text(
        "name: two\n"
        "baselines: [{noise.type: none, data.train: demo}]\n"
        "parameters: {data.train: {type: categorical, choices: [demo, nowhere.json]}}\n"
        "search: {num_trials: 2}\n"
    )
    (tmp_path / "prompts.json").write_text(json.dumps(ASKED[1:]))
    with pytest.raises(DataError, match=r"nowhere\.json"):
        prepare(str(tmp_path / "two.yaml"), [f"data.eval_prompts={tmp_path}/prompts.json"])


def test_noise_types_that_are_contrasted_are_confirmed_once():
    assert size_text(prepare("controls", [])).endswith("at most 25 to confirm")


def test_the_model_of_a_local_judge_is_looked_at_before_the_first_trial(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    given = ["judge.type=local", f"judge.model={tmp_path}/empty"]
    with pytest.raises(UserError, match=r"judge\.model=.*empty: must be readable, but .*config"):
        prepare("quickstart", given)


# A model on the hub

CONFIG = json.dumps({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}).encode()


@contextmanager
def hub(*, slowly: float = 0.0, failing: int = 0) -> Iterator[str]:
    """A hub with one model, `org/model`; slow, or out of order for the first calls."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            calls.append(self.path)
            time.sleep(slowly)
            if self.path != "/org/model/resolve/main/config.json":
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
            elif len(calls) <= failing:
                self.send_response(503)
            else:
                self.send_response(200)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(CONFIG)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(CONFIG)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def ask(verb: str, name: str, endpoint: str, home: Path) -> tuple[int, str, float]:
    """Exit status, what was told, and seconds; in a process of its own, which reads HF_ENDPOINT."""
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "symnoise_ray", verb, "quickstart", f"model.name={name}"],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr, time.monotonic() - began


NOWHERE = "http://127.0.0.1:9"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_a_hub_that_cannot_be_reached_is_told_soon(verb: str, tmp_path: Path):
    _, _, usual = ask(verb, "demo", NOWHERE, tmp_path)
    status, told, seconds = ask(verb, "org/model", NOWHERE, tmp_path)
    assert status == 2
    assert "model.name=org/model: must" in told
    assert "it is not cached, and the hub cannot be reached: " in told
    assert told.count("\n") == 1
    assert seconds < 15 + 3 * usual, "the library's own retries take 23 seconds"


@pytest.mark.slow
def test_a_model_on_the_hub_is_found_there_and_later_in_the_cache(tmp_path: Path):
    with hub() as endpoint:
        assert ask("validate", "org/model", endpoint, tmp_path)[0] == 0
        status, told, _ = ask("validate", "org/absent", endpoint, tmp_path)
        assert status == 2
        assert "model.name=org/absent: must be demo, a folder that exists, or the name of" in told
        assert "404" in told
    assert ask("validate", "org/model", NOWHERE, tmp_path)[0] == 0


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("trouble", [{"slowly": 6.0}, {"failing": 3}])
def test_a_hub_that_is_slow_or_out_of_order_for_a_moment_is_waited_for(
    trouble: dict[str, Any], tmp_path: Path
):
    with hub(**trouble) as endpoint:
        status, told, _ = ask("validate", "org/model", endpoint, tmp_path)
    assert status == 0, told
