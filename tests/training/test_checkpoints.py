"""A checkpoint is whole or ignored, and training goes on from it with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import CancelledError
from symnoise_ray.records.files import read_json, read_sealed, write_json, write_sealed
from symnoise_ray.training import checkpoints
from symnoise_ray.training.checkpoints import identity, newest
from symnoise_ray.training.loop import train
from symnoise_ray.training.schedule import KEPT_CHECKPOINTS
from symnoise_ray.workers.task import run_task
from tests.ranks import free_port

Trial = Callable[..., TrialConfig]
OFTEN = 1e-9
"""Minutes after which a checkpoint is due: after every step."""

pytestmark = pytest.mark.usefixtures("process_group")


def run(config: TrialConfig, folder: Path | None, *, stop_after: int | None = None) -> list[Any]:
    """Records of a training, which is left after a step as if its worker were gone."""
    records: list[dict[str, Any]] = []

    def cancelled() -> bool:
        return stop_after is not None and len(records) > stop_after

    try:
        train(config, records.append, cancelled=cancelled, checkpoints=folder).release()
    except CancelledError:
        assert stop_after is not None
    return records


def steps(folder: Path) -> list[int]:
    """Whole checkpoints, newest first, once their writer is through."""
    deadline = time.monotonic() + 300
    while list(folder.glob(".*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    names = [path.name for path in folder.iterdir()]
    assert not any(name.startswith(".") for name in names)
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("stage", "dtype"),
    [
        (0, "fp32"),
        (3, "bf16"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [(0, "bf16"), (1, "fp32"), (2, "bf16")]
        ),
    ],
)
def test_a_resumed_training_is_the_undisturbed_one_bit_for_bit(
    trial: Trial, tmp_path: Path, stage: int, dtype: str
) -> None:
    config = trial(
        noise__type="symnoise",
        noise__alpha=5,
        train__zero_stage=stage,
        model__dtype=dtype,
        train__checkpoint_minutes=OFTEN,
        optim__weight_decay=0.1,
    )
    undisturbed = run(config, None)
    before = run(config, tmp_path, stop_after=3)
    assert steps(tmp_path) == [3, 2]
    after = run(config, tmp_path)
    assert [record["step"] for record in after] == [4, 5, 6]
    assert before + after == undisturbed


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "settings",
    [
        {"lora__rank": 4, "lora__dropout": 0.2},
        pytest.param({"lora__rank": 4, "train__zero_stage": 3}, marks=pytest.mark.slow),
        {"train__zero_stage": 1, "train__offload": "optimizer"},
        {"train__zero_stage": 3, "train__offload": "all"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_so_is_one_with_adapters_dropout_or_offloaded_states(
    trial: Trial, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = trial(train__checkpoint_minutes=OFTEN, **settings)
    undisturbed = run(config, None)
    before = run(config, tmp_path, stop_after=2)
    assert steps(tmp_path) == [2, 1]
    assert before + run(config, tmp_path) == undisturbed


def test_a_checkpoint_of_one_stage_serves_another(trial: Trial, tmp_path: Path) -> None:
    run(trial(train__checkpoint_minutes=OFTEN), tmp_path, stop_after=3)
    sharded = trial(train__checkpoint_minutes=OFTEN, train__zero_stage=2)
    manifest = read_sealed(tmp_path / "3" / "manifest.json")
    write_sealed({**manifest, "identity": identity(sharded)}, tmp_path / "3" / "manifest.json")
    after = run(sharded, tmp_path)
    assert [r["loss"] for r in after] == pytest.approx(
        [r["loss"] for r in run(trial(), None)[4:]], rel=1e-5
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "broken", ["tensors", "manifest", "list", "no files", "digit", "no manifest", "gone"]
)
def test_a_broken_checkpoint_falls_back_to_the_one_before(
    trial: Trial, tmp_path: Path, broken: str
) -> None:
    config = trial(train__checkpoint_minutes=OFTEN)
    run(config, tmp_path, stop_after=3)
    assert steps(tmp_path) == [3, 2]
    tensors, manifest = tmp_path / "3" / "0.safetensors", tmp_path / "3" / "manifest.json"
    if broken == "tensors":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif broken == "manifest":
        manifest.write_text(manifest.read_text()[:50])
    elif broken == "list":
        manifest.write_text("[1, 2]")
    elif broken == "no files":
        write_json({**read_json(manifest), "files": {}}, manifest)
    elif broken == "digit":
        manifest.write_text(manifest.read_text().replace('"step": 3', '"step": 5'))
    elif broken == "no manifest":
        manifest.unlink()
    else:
        tensors.unlink()
    assert newest(tmp_path, identity(config))["step"] == 2  # type: ignore[index]
    assert [record["step"] for record in run(config, tmp_path)] == [3, 4, 5, 6]


def test_another_trials_checkpoint_is_not_taken(trial: Trial, tmp_path: Path) -> None:
    run(trial(train__checkpoint_minutes=OFTEN), tmp_path, stop_after=3)
    other = trial(train__checkpoint_minutes=OFTEN, optim__lr=2e-3)
    assert newest(tmp_path, identity(other)) is None
    assert run(other, tmp_path)[0]["step"] == 0


def test_smaller_pieces_of_a_step_are_the_same_trial(trial: Trial) -> None:
    assert identity(trial(train__micro_batch_size=1)) == identity(trial())
    assert identity(trial(train__global_batch_size=8)) != identity(trial())


@pytest.mark.parametrize("limit", ["max_eval_prompts", "max_confirm_prompts"])
def test_a_trial_with_another_limit_of_prompts_is_trained_alike(limit: str, trial: Trial) -> None:
    assert identity(trial(**{f"data__{limit}": 2})) == identity(trial())


def test_only_the_newest_checkpoints_stay_and_none_are_written_unasked(
    trial: Trial, tmp_path: Path
) -> None:
    run(trial(train__checkpoint_minutes=OFTEN), tmp_path / "often")
    assert steps(tmp_path / "often") == [6, 5]
    assert KEPT_CHECKPOINTS == 2
    run(trial(train__checkpoint_minutes=0), tmp_path / "never")
    run(trial(train__checkpoint_minutes=60), tmp_path / "seldom")
    assert not (tmp_path / "never").exists()
    assert not (tmp_path / "seldom").exists()


SCRIPT = """
import json, os, sys, time
from pathlib import Path
from symnoise_ray.config import TrialConfig
from symnoise_ray.records.files import read_json, read_sealed, write_json, write_sealed
from symnoise_ray.training import checkpoints
from symnoise_ray.workers.task import run_task

config, directory = TrialConfig.model_validate_json(Path(sys.argv[1]).read_text()), sys.argv[2]

def report(record):
    print(json.dumps(record), flush=True)

save_file = checkpoints.save_file

def hang_half_way(tensors, file):
    save_file(tensors, file)
    if file.parent.name == os.environ.get("HANG_IN"):
        os.truncate(file, file.stat().st_size // 2)
        print(json.dumps({"step": "writing"}), flush=True)
        time.sleep(600)

checkpoints.save_file = hang_half_way
outcome = run_task(config, Path(directory), report=report, cancelled=lambda: False)
assert outcome.status == "done", outcome
print(json.dumps({"resumed_at": outcome.summary["resumed_at"]}), flush=True)
"""


def start(config: TrialConfig, directory: Path, **variables: str) -> subprocess.Popen[str]:
    """A worker's task in a process of its own."""
    file = directory.parent / "config.json"
    file.write_text(config.model_dump_json())
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {k: v for k, v in os.environ.items() if k not in names} | variables
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def files(directory: Path) -> list[str]:
    """What a trial leaves, but for the name of its directory."""
    names = ("metrics.jsonl", "completions.jsonl")
    return [(directory / name).read_text().replace(directory.name, "") for name in names]


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["in a step", "in a write"])
def test_a_killed_worker_costs_steps_but_no_bits(trial: Trial, tmp_path: Path, moment: str) -> None:
    config = trial(train__checkpoint_minutes=OFTEN, train__max_steps=12)
    whole, killed = tmp_path / "a" / "whole", tmp_path / "b" / "killed"
    for directory in (whole, killed):
        directory.mkdir(parents=True)
    worker = start(config, killed, HANG_IN=".9.partial" if moment == "in a write" else "")
    assert worker.stdout is not None
    for line in worker.stdout:
        if json.loads(line)["step"] == (7 if moment == "in a step" else "writing"):
            break
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    left = [path.name for path in (killed / "checkpoints").iterdir()]
    assert any(name.isdecimal() for name in left)
    assert moment == "in a step" or ".9.partial" in left
    worker = start(config, killed)
    told = worker.communicate(timeout=1200)[0].splitlines()
    assert worker.returncode == 0
    assert json.loads(told[-1])["resumed_at"] > 0
    undisturbed = run_task(config, whole, report=lambda _record: None, cancelled=lambda: False)
    assert undisturbed.status == "done"
    assert files(killed) == files(whole)
    assert not (killed / "checkpoints").exists()


@pytest.mark.slow
def test_more_workers_go_on_where_one_stopped(trial: Trial, tmp_path: Path) -> None:
    config = trial(train__checkpoint_minutes=OFTEN, train__zero_stage=1)
    undisturbed = run(config, None)
    directory = tmp_path / "t" / "trial"
    run(config, directory / "checkpoints", stop_after=3)
    assert steps(directory / "checkpoints")[0] == 3
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    workers = [
        start(config, directory, RANK=str(rank), LOCAL_RANK=str(rank), **where) for rank in (0, 1)
    ]
    told = [worker.communicate(timeout=1200)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    records = [json.loads(line) for line in told[0][:-1]]
    assert [record["step"] for record in records] == [4, 5, 6]
    assert [r["loss"] for r in records] == pytest.approx(
        [r["loss"] for r in undisturbed[4:]], rel=1e-5
    )


def test_a_checkpoint_that_cannot_be_written_ends_the_trial(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_inputs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(Exception, match=r"a checkpoint must be written, but .* No space left"):
        run(trial(train__checkpoint_minutes=OFTEN), tmp_path)
