"""Tasks of lm-evaluation-harness are answered by the trained model, and nothing else changes."""

import copy
import importlib.util
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from symnoise_ray.config import HarnessConfig, ModelConfig, NoiseConfig, TrialConfig
from symnoise_ray.errors import CancelledError, DataError, UserError
from symnoise_ray.generation import harness_tasks
from symnoise_ray.generation.harness import harness_scores, load_tasks
from symnoise_ray.models.weights import Loaded, load
from symnoise_ray.preflight.inputs import check_inputs
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import RESULT, SweepPaths
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report import write as report
from symnoise_ray.report.board import Board
from symnoise_ray.space.trials import TrialPlan
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.tracking.mlflow_runs import Tracker
from symnoise_ray.tracking.names import metric_name
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.task import run_task
from tests.ranks import run_ranks

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.usefixtures("process_group")

Trial = Callable[..., TrialConfig]

KINDS = ("animal", "fruit", "tool", "colour")
QUESTIONS = [
    ("lion", "animal"),
    ("duck", "animal"),
    ("cherry", "fruit"),
    ("hammer", "tool"),
    ("wolf", "animal"),
    ("apple", "fruit"),
    ("red", "colour"),
    ("blue", "colour"),
    ("saw", "tool"),
]
"""Things, and what they are; some of them the demo's model knows."""
ASKED = "What kind of thing is the {}?\nThe {} is"
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
"""
TASKS = {
    "kinds": """
task: kinds
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{kinds.index(kind)}}"
doc_to_choice: "{{kinds}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    "texts": """
task: texts
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{kind}}."
metric_list:
  - {metric: byte_perplexity}
""",
    "words": """
task: words
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{kind}}"
generation_kwargs: {until: ["."], max_gen_toks: 6, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - name: last-word
    filter: [{function: regex, regex_pattern: "(\\\\w+)$"}, {function: take_first}]
""",
    "all": """
group: all
task: [kinds, {task: words}]
aggregate_metric_list: [{metric: acc}]
""",
}


@pytest.fixture
def tasks_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tasks of our own, for every way in which lm_eval asks a model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {"question": ASKED.format(thing, thing), "kind": kind, "kinds": list(KINDS)}
        for thing, kind in QUESTIONS
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        data = "" if name == "all" else COMMON.replace("ROWS", str(file))
        (folder / f"{name}.yaml").write_text(text + data)
    return folder


def asked(folder: Path, *tasks: str, **settings: Any) -> HarnessConfig:
    return HarnessConfig(tasks=tasks, include_path=str(folder), **settings)


def scores(loaded: Loaded, config: HarnessConfig, **settings: Any) -> dict[str, float]:
    return harness_scores(
        loaded.model,
        loaded.tokenizer,
        config,
        load_tasks(config),
        context=loaded.context,
        **settings,
    )


def loglikelihood(loaded: Loaded, context: str, continuation: str) -> float:
    """The sum of log p of the continuation's tokens, by one plain forward pass."""
    start = len(loaded.tokenizer(context)["input_ids"])
    ids = torch.tensor([loaded.tokenizer(context + continuation)["input_ids"]])
    with torch.no_grad():
        logprobs = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return sum(float(logprobs[i - 1, ids[0, i]]) for i in range(start, ids.shape[1]))


def test_the_scores_are_those_of_log_likelihoods_by_hand(tasks_dir: Path) -> None:
    loaded = load(ModelConfig())
    right, right_by_length = [], []
    for thing, kind in QUESTIONS:
        context = ASKED.format(thing, thing)
        found = [loglikelihood(loaded, context, f" {choice}") for choice in KINDS]
        per_letter = [value / len(choice) for value, choice in zip(found, KINDS, strict=True)]
        right.append(KINDS[int(np.argmax(found))] == kind)
        right_by_length.append(KINDS[int(np.argmax(per_letter))] == kind)
    assert 0 < sum(right) < len(right), "the model knows some and not all"
    told = scores(loaded, asked(tasks_dir, "kinds", batch_size=5))
    assert told["harness/kinds/acc"] == np.mean(right)
    assert told["harness/kinds/acc_norm"] == np.mean(right_by_length)
    error = np.std(right, ddof=1) / len(right) ** 0.5
    assert told["harness/kinds/acc_stderr"] == pytest.approx(error)
    assert len(told) == 4


def test_whole_texts_and_written_answers_are_scored_too(tasks_dir: Path) -> None:
    loaded = load(ModelConfig())
    told = scores(loaded, asked(tasks_dir, "texts", "words"))
    start = loaded.tokenizer.bos_token or loaded.tokenizer.eos_token
    texts = [f"{ASKED.format(thing, thing)} {kind}." for thing, kind in QUESTIONS]
    total = sum(loglikelihood(loaded, start, text) for text in texts)
    expected = np.exp(-total / sum(len(text.encode()) for text in texts))
    assert told["harness/texts/byte_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert 0 <= told["harness/words/exact_match.last-word"] <= 1
    assert told["harness/words/exact_match_stderr.last-word"] >= 0


def test_few_shots_limits_and_batches_are_taken(tasks_dir: Path) -> None:
    loaded = load(ModelConfig())
    alone = scores(loaded, asked(tasks_dir, "kinds", "texts", batch_size=1))
    assert scores(loaded, asked(tasks_dir, "kinds", "texts")) == pytest.approx(alone, rel=1e-5)
    one = scores(loaded, asked(tasks_dir, "kinds", limit=1))
    assert set(one) == {"harness/kinds/acc", "harness/kinds/acc_norm"}, "no error of one answer"
    shots = [scores(loaded, asked(tasks_dir, "texts", "words", num_fewshot=3)) for _ in range(2)]
    assert shots[0] == shots[1]


def test_model_tokenizer_and_random_states_are_left_as_they_were(
    tasks_dir: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load(ModelConfig(name=str(tiny_model_dir)))
    loaded.model.train()
    before = copy.deepcopy(loaded.model.state_dict())
    parameters = dict(loaded.model.named_parameters())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    capfd.readouterr()
    first = scores(loaded, asked(tasks_dir, "kinds", "texts", "words"))
    assert capfd.readouterr() == ("", "")
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert loaded.model.training
    assert loaded.tokenizer.pad_token is None
    assert not loaded.model._forward_pre_hooks
    for name, parameter in loaded.model.named_parameters():
        assert parameter is parameters[name]
        assert torch.equal(parameter, before[name])
    random.seed(5)
    torch.manual_seed(5)
    assert scores(loaded, asked(tasks_dir, "kinds", "texts", "words")) == first


def test_there_is_a_chance_to_stop_before_every_pass(tasks_dir: Path) -> None:
    asked_for = iter([False, False, True])
    loaded = load(ModelConfig())
    with pytest.raises(CancelledError, match="cancelled"):
        scores(loaded, asked(tasks_dir, "kinds"), cancelled=lambda: next(asked_for))
    assert next(asked_for, None) is None
    assert not loaded.model._forward_pre_hooks


def test_memory_that_runs_out_is_told_with_the_setting_that_helps(tasks_dir: Path) -> None:
    def no_room() -> bool:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(UserError, match=r"harness\.batch_size=8: must fit .* lower it"):
        scores(load(ModelConfig()), asked(tasks_dir, "kinds"), cancelled=no_room)


# Whole trials


def run(config: TrialConfig, directory: Path) -> Outcome:
    outcome = run_task(
        config, directory / "trials" / "one", report=lambda _: None, cancelled=lambda: False
    )
    assert outcome.status == "done", outcome
    return outcome


def upstream(outcome: Outcome) -> dict[str, float]:
    return {name: value for name, value in outcome.summary.items() if "/" in name}


@pytest.mark.slow
def test_a_trial_tells_its_scores_and_is_the_same_trial_otherwise(
    trial: Trial, tasks_dir: Path, tmp_path: Path
) -> None:
    settings = {"noise__type": "symnoise", "noise__alpha": 5, "train__save_model": True}
    check = {"harness__tasks": ("kinds", "texts"), "harness__include_path": str(tasks_dir)}
    without = run(trial(**settings), tmp_path / "without")
    checked = run(trial(**settings, **check), tmp_path / "checked")
    after = run(trial(**settings), tmp_path / "after")
    assert set(upstream(checked)) == {
        "harness/kinds/acc",
        "harness/kinds/acc_stderr",
        "harness/kinds/acc_norm",
        "harness/kinds/acc_norm_stderr",
        "harness/texts/byte_perplexity",
    }
    assert not upstream(without)
    assert checked.seconds["harness"] > 0
    assert "harness" not in without.seconds
    measured = ("loss", "clean_loss", "curvature", "num_passed_tokens")
    files = ("metrics.jsonl", "completions.jsonl", "model/model.safetensors")
    settled = ("model/tokenizer.json", "model/tokenizer_config.json")
    for name, other in (("checked", checked), ("after", after)):
        assert all(other.summary[key] == without.summary[key] for key in measured)
        for file in (*files, *settled):
            same, expected = (
                (tmp_path / part / "trials" / "one" / file).read_bytes()
                for part in (name, "without")
            )
            assert same == expected, (name, file)


def test_noise_plays_no_part_in_the_scores(trial: Trial, tasks_dir: Path, tmp_path: Path) -> None:
    config = trial(
        noise__type="symnoise",
        noise__alpha=50,
        train__save_model=True,
        harness__tasks=("kinds", "texts"),
        harness__include_path=str(tasks_dir),
    )
    told = upstream(run(config, tmp_path))
    reloaded = load(ModelConfig(name=str(tmp_path / "trials" / "one" / "model")))
    assert told == scores(reloaded, config.harness)


SCRIPT = """
import json, sys
from pathlib import Path
from symnoise_ray.config import TrialConfig
from symnoise_ray.workers.task import run_task

for number, text in enumerate(json.loads(Path(sys.argv[1]).read_text())):
    folder = Path(sys.argv[1]).parent / "two" / "trials" / str(number)
    outcome = run_task(TrialConfig.model_validate_json(text), folder,
                       report=lambda record: None, cancelled=lambda: False)
    assert outcome.status == "done", outcome
    print("SCORES", json.dumps({k: v for k, v in outcome.summary.items() if "/" in k}), flush=True)
"""


CANCELLED = """
import os, sys
from pathlib import Path
from symnoise_ray.config import TrialConfig
from symnoise_ray.workers.task import run_task

rank = int(os.environ["RANK"])
folder = Path(sys.argv[2]) / "trials" / "one"
for index, text in enumerate(Path(sys.argv[1]).read_text().splitlines()):
    passes = 0

    def cancelled():
        # Only the second worker hears of it, while the questions are answered.
        global passes
        passes += (folder / "completions.jsonl").exists()
        return rank == 1 and passes > 2

    (folder / "completions.jsonl").unlink(missing_ok=True)
    outcome = run_task(TrialConfig.model_validate_json(text), folder,
                       report=lambda record: None, cancelled=cancelled)
    print("END", outcome.status, outcome.reason, flush=True)
"""


@pytest.mark.slow
@pytest.mark.nightly
def test_two_workers_stop_at_the_same_place_sharded_or_not(
    trial: Trial, tasks_dir: Path, tmp_path: Path
) -> None:
    common = {
        "train__max_steps": 1,
        "harness__tasks": ("kinds", "texts", "words"),
        "harness__include_path": str(tasks_dir),
        "harness__batch_size": 1,
    }
    configs = [trial(**common), trial(train__zero_stage=3, **common)]
    file = tmp_path / "configs.jsonl"
    file.write_text("\n".join(config.model_dump_json() for config in configs))
    for told in run_ranks(CANCELLED, file, tmp_path):
        ends = [line for line in told.splitlines() if line.startswith("END")]
        assert ends == ["END cancelled cancelled while answering the tasks of harness.tasks"] * 2


def two_workers(configs: list[TrialConfig], folder: Path) -> list[list[dict[str, float]]]:
    """The scores that each of two processes tells."""
    file = folder / "configs.json"
    file.write_text(json.dumps([config.model_dump_json() for config in configs]))
    told = run_ranks(SCRIPT, file)
    return [
        [json.loads(line[7:]) for line in text.splitlines() if line.startswith("SCORES")]
        for text in told
    ]


@pytest.mark.slow
@pytest.mark.nightly
def test_two_workers_score_like_one_sharded_or_not(
    trial: Trial, tasks_dir: Path, tmp_path: Path
) -> None:
    """Nine questions, and one alone: a worker has less to do than the other, or nothing."""
    common = {
        "optim__lr": 1e-9,
        "train__max_steps": 1,
        "harness__tasks": ("kinds", "texts", "words"),
        "harness__include_path": str(tasks_dir),
        "harness__batch_size": 3,
    }
    ways: list[dict[str, Any]] = [
        {},
        {"train__zero_stage": 2},
        {"train__zero_stage": 3},
        {"train__zero_stage": 3, "harness__limit": 1},
        {"harness__limit": 1},
        {"train__zero_stage": 3, "train__offload": "all", "lora__rank": 2},
        {"harness__num_fewshot": 1},
    ]
    alone = [
        upstream(run(trial(**{**common, **way, "train__zero_stage": 0, "train__offload": "none"}),
                     tmp_path / f"alone-{number}"))
        for number, way in enumerate(ways)
    ]  # fmt: skip
    assert len(alone[0]) == 7
    first, second = two_workers([trial(**{**common, **way}) for way in ways], tmp_path)
    assert first == second
    for way, expected, got in zip(ways, alone, first, strict=True):
        assert got == pytest.approx(expected, rel=1e-5), way
        for name in ("acc", "acc_norm"):
            assert got[f"harness/kinds/{name}"] == expected[f"harness/kinds/{name}"], way


@pytest.mark.slow
def test_the_scores_are_those_of_lm_evals_own_evaluation_of_the_saved_model(
    tasks_dir: Path, tiny_model_dir: Path
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    config = asked(tasks_dir, "kinds", "texts", "words", num_fewshot=2)
    told = scores(load(ModelConfig(name=str(tiny_model_dir))), config)
    theirs = simple_evaluate(
        model="hf",
        model_args=f"pretrained={tiny_model_dir},dtype=float32",
        tasks=list(config.tasks),
        num_fewshot=2,
        batch_size=8,
        device="cpu",
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tasks_dir), include_defaults=False),
    )["results"]
    for name in ("acc", "acc_norm"):
        assert told[f"harness/kinds/{name}"] == theirs["kinds"][f"{name},none"]
    assert told["harness/texts/byte_perplexity"] == theirs["texts"]["byte_perplexity,none"]
    match = theirs["words"]["exact_match,last-word"]
    assert told["harness/words/exact_match.last-word"] == match


@pytest.mark.slow
def test_of_a_group_with_a_score_its_members_are_left_out(tasks_dir: Path) -> None:
    loaded = load(ModelConfig())
    alone = scores(loaded, asked(tasks_dir, "kinds"))
    group = scores(loaded, asked(tasks_dir, "all"))
    assert set(group) == {"harness/all/acc", "harness/all/acc_stderr"}
    assert group["harness/all/acc"] == alone["harness/kinds/acc"]


# What people see


def test_report_and_mlflow_show_the_scores_with_plain_fine_tuning_first(tmp_path: Path) -> None:
    exact = {"harness/words/exact_match.last-word": 0.75}
    exact["harness/words/exact_match_stderr.last-word"] = 0.0625
    told = {
        "000-none": exact | {"harness/kinds/acc": 0.5, "win_rate": 0.5},
        "001-symnoise": exact | {"harness/kinds/acc": 0.25, "win_rate": 0.9},
    }
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = Tracker(tmp_path, uri, "tests")
    tracker.log("start", "sweep", parent="", params={}, tags={})
    with Watch("sweep", Board(Console(file=io.StringIO()), "sweep"), tracker) as watch:
        for name, values in told.items():
            noise = NoiseConfig(type="symnoise", alpha=5) if "sym" in name else NoiseConfig()
            directory = tmp_path / "trials" / name
            plan = TrialPlan(name, TrialConfig(noise=noise), directory, directory, {})
            result = plan.result("done", values={"interval_95": [0, 1], **values})
            write_json(result.to_json(), directory / RESULT)
            watch.add(plan)
    assert tracker.close(timeout=600) == ""
    found = SweepResult(SweepPaths(tmp_path), "sweep", "whole", trials=tuple(watch.results))
    table = report.markdown(found)
    rows = ["| 000-none | 0.750 ± 0.062 | 0.500 |", "| 001-symnoise | 0.750 ± 0.062 | 0.250 |"]
    assert "| trial | words exact_match.last-word | kinds acc |" in table
    assert "\n".join(rows) in table
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    metrics = {run.info.run_name.rpartition("/")[2]: run.data.metrics for run in runs}
    for name, found in told.items():
        renamed = {metric_name(value): number for value, number in found.items()}
        assert renamed.items() <= metrics[name].items()


def test_a_report_without_scores_does_not_speak_of_them() -> None:
    trial = TrialResult("000-none", values={"win_rate": 0.5})
    text = report.markdown(SweepResult(SweepPaths(Path()), "sweep", "whole", trials=(trial,)))
    assert "harness" not in text


# What is told before anything starts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 3}, r"harness\.limit has no meaning without harness\.tasks, but got 3"),
        ({"include_path": "x"}, r"harness\.include_path has no meaning without"),
        ({"tasks": ("a",), "limit": 0}, "greater than or equal to 1"),
        ({"tasks": ("a",), "num_fewshot": -1}, "greater than or equal to 0"),
        ({"tasks": ("a",), "batch_size": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HarnessConfig(**settings)


def test_a_missing_package_is_told_with_what_installs_it(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "lm_eval" else known(name)
    )
    check_inputs([trial()])
    with pytest.raises(UserError, match=r"the extra harness\): pip install 'lm_eval"):
        check_inputs([trial(harness__tasks=("arc_challenge",))])


def test_a_folder_without_tasks_is_refused(trial: Trial, tmp_path: Path) -> None:
    config = trial(harness__tasks=("kinds",), harness__include_path=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"include_path=.*gone: must be a folder with task files"):
        check_inputs([config])


def test_a_task_that_nobody_knows_is_refused_with_the_nearest_names(
    trial: Trial, tasks_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    # All of lm_eval's own take ten seconds to read; a slow test does.
    monkeypatch.setattr(
        harness_tasks, "_all_tasks", lambda f: TaskManager(include_path=f, include_defaults=False)
    )
    settings = {"harness__include_path": str(tasks_dir)}
    check_inputs([trial(**settings, harness__tasks=("kinds", "all"))])
    config = trial(**settings, harness__tasks=("kinds", "kind"))
    with pytest.raises(UserError, match="lm_eval knows, but got 'kind'; did you mean kinds"):
        check_inputs([config])


@pytest.mark.slow
def test_lm_evals_own_tasks_are_known_by_their_names(trial: Trial) -> None:
    names = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2")
    check_inputs([trial(harness__tasks=names)])
    with pytest.raises(UserError, match=r"but got 'hellaswagg'; did you mean .*hellaswag"):
        check_inputs([trial(harness__tasks=("hellaswagg",))])


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("rows.jsonl", "gone.jsonl", "harness.tasks=kinds: lm_eval must load them, but .*gone"),
        ("{{kinds.index(kind)}}", "{{nothing.index(kind)}}", "must load them, but .*nothing"),
        ("task: kinds", "task: kinds\nunsafe_code: true", "kinds runs code that the model writes"),
    ],
)
def test_a_task_that_cannot_be_run_ends_the_trial_before_its_training(
    trial: Trial, tasks_dir: Path, tmp_path: Path, was: str, becomes: str, message: str
) -> None:
    file = tasks_dir / "kinds.yaml"
    file.write_text(file.read_text().replace(was, becomes))
    config = trial(harness__tasks=("kinds",), harness__include_path=str(tasks_dir))
    with pytest.raises(UserError, match=message):
        load_tasks(config.harness)
    directory = tmp_path / "trials" / "one"
    outcome = run_task(config, directory, report=lambda _: None, cancelled=lambda: False)
    assert outcome.status == "failed"
    assert outcome.kind in (UserError.kind, DataError.kind)
    assert "\n" not in outcome.reason
    assert not (directory / "metrics.jsonl").exists()
