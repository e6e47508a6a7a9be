"""What cannot be used is refused by `validate`, `tune` and `train` alike, and leaves nothing."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from symnoise_ray.cli.main import main
from symnoise_ray.config import JudgeConfig, WorkersConfig
from symnoise_ray.demo.content import model_dir
from symnoise_ray.errors import EXIT_USER, UserError
from symnoise_ray.preflight import resources
from symnoise_ray.preflight.inputs import prepare
from symnoise_ray.preflight.resources import require_machine
from tests.models.test_folder import BERT, T5, model

__all__ = ["model"]  # a fixture
VERBS = {
    "validate": ["validate", "quickstart"],
    "tune": ["tune", "quickstart", "--output", "out"],
    "tune --dry-run": ["tune", "quickstart", "--dry-run"],
    "train": ["train", "trial.yaml", "--output", "out"],
}
NAME = "model.name={folder}"
Spoil = Callable[[Path], object]


def spoiled(folder: Path, how: str) -> None:
    """Change the demo's copy."""
    weights = folder / "model.safetensors"
    if how == "weights":
        held = load_file(weights)
        for name in list(held)[:9]:
            del held[name]
        save_file(held, weights, metadata={"format": "pt"})
    elif how == "tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif how == "no weights":
        weights.unlink()


FAULTS: dict[str, tuple[str, list[str], str]] = {
    "weights that are missing": ("weights", [NAME], "they lack 10 tensors that it needs"),
    "no weights": ("no weights", [NAME], "must be readable, but it holds no *.safetensors"),
    "no tokenizer": ("tokenizer", [NAME], "must hold the model's tokenizer"),
    "no such folder": (
        "",
        ["model.name=./absent"],
        "model.name={here}/absent: the folder of the model must exist",
    ),
    "an adapter for no layer": (
        "",
        ["lora.rank=4", "lora.target_modules=[W_pack]"],
        "'W_pack' is none; its linear layers are: down_proj, gate_proj",
    ),
    "an answer as long as the context": (
        "",
        ["generate.max_new_tokens=512"],
        "must be smaller than the model's context of 256 tokens, but got 512",
    ),
    "a row longer than the context": ("", ["data.max_length=4096"], "data.max_length"),
    "an endpoint without its key": (
        "",
        ["judge.type=api", "judge.model=gpt"],
        "judge.api_key_env: must name the environment variable that holds the key of https://api.o",
    ),
    "a key that is not set": (
        "",
        ["judge.type=api", "judge.model=gpt", "judge.api_key_env=NO_SUCH_KEY"],
        "judge.api_key_env: the environment variable of this name must hold the key",
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty but for a trial's file."""
    place = tmp_path / "here"
    place.mkdir()
    (place / "trial.yaml").write_text("train: {max_steps: 1}\n")
    monkeypatch.chdir(place)
    return place


def refused(command: list[str], here: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with; it leaves nothing behind."""
    status = main(command)
    told = capfd.readouterr()
    assert status == EXIT_USER, told
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert [each.name for each in here.iterdir()] == ["trial.yaml"]
    return told.err


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_every_verb_in_the_same_line(
    fault: str, verb: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    how, settings, message = FAULTS[fault]
    folder = tmp_path / "model"
    shutil.copytree(model_dir(), folder)
    spoiled(folder, how)
    command, settings = VERBS[verb], [each.format(folder=folder) for each in settings]
    told = refused([*command, *settings], here, capfd)
    assert message.format(here=here) in told


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("family", "sizes"), [("Bert", BERT), ("T5", T5)])
def test_a_model_that_is_no_decoder_is_refused_by_every_verb(
    family: str,
    sizes: dict[str, int],
    verb: str,
    here: Path,
    model: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
):
    folder = model(family, sizes)
    capfd.readouterr()  # of writing the model
    told = refused([*VERBS[verb], f"model.name={folder}"], here, capfd)
    assert "must be a causal language model" in told


@pytest.mark.parametrize("verb", ["validate", "tune", "plan"])
def test_a_batch_that_the_workers_do_not_divide_is_refused(
    verb: str, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    given = ["workers.num_workers=2", "train.global_batch_size=7"]
    told = refused([verb, "quickstart", *given], here, capfd)
    assert "train.global_batch_size=7 must be a multiple of the 2 workers" in told


@pytest.mark.parametrize(
    "setting", ["workers.num_workers=8", "workers.cpus_per_worker=8", "workers.gpus_per_worker=1"]
)
@pytest.mark.parametrize("verb", ["validate", "tune"])
def test_workers_that_the_only_machine_does_not_hold_are_refused(
    setting: str,
    verb: str,
    here: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(resources, "_num_gpus", lambda: 0)
    given = ["train.global_batch_size=16", setting]
    told = refused([verb, "quickstart", *given], here, capfd)
    assert "but the only node, this machine, offers 2 CPU" in told
    assert "; lower workers.num_workers" in told
    with monkeypatch.context() as cluster:
        cluster.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
        assert prepare("quickstart", given).workers
    assert prepare("quickstart", [*given, "workers.max_slots=1"]).workers
    assert main(["plan", "quickstart", *given]) == 0, "a plan may be for another machine"


def test_the_judges_workers_count_on_the_only_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    judge = JudgeConfig(type="local", model="demo", num_workers=2)
    with pytest.raises(
        UserError,
        match=r"beside the judge's 2 of 1 CPU, but the only node, this machine, offers 2 CPU",
    ):
        require_machine(WorkersConfig(), judge)
    require_machine(WorkersConfig(), judge.model_copy(update={"num_workers": 1}))


def test_an_endpoint_of_ones_own_needs_no_key(here: Path):
    own = ["judge.type=api", "judge.model=m", "judge.base_url=http://127.0.0.1:9/v1"]
    assert prepare("quickstart", own).trial["judge"]["model"] == "m"


def test_a_second_training_does_not_take_the_place_of_a_trained_model(
    here: Path, capfd: pytest.CaptureFixture[str]
):
    kept = here / "out" / "model"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text(json.dumps({"kept": True}))
    assert main(["train", "trial.yaml", "--output", "out"]) == EXIT_USER
    assert capfd.readouterr().err == (
        "error: --output out: must not hold a trained model yet, but out/model is there; name "
        "another folder, or move the model away\n"
    )
    assert [path.name for path in kept.parent.iterdir()] == ["model"]
    assert json.loads((kept / "config.json").read_text()) == {"kept": True}
