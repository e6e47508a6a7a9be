"""The spaces of the SymNoise paper: its whole study, from one table, each forecast offline."""

import importlib.util
import itertools
import json
import sys
from types import ModuleType

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.data.sources import PRESETS
from symnoise_ray.judges.self_check import check_settings
from symnoise_ray.space.design import Arms
from symnoise_ray.space.parameters import resolve
from tests.conftest import ROOT

FOLDER = ROOT / "search_spaces" / "paper"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DATA = ("alpaca", "evol-instruct", "sharegpt", "open-platypus")
MODELS = {
    "llama1-7b": "huggyllama/llama-7b",
    "llama2-7b": "meta-llama/Llama-2-7b-hf",
    "opt-6.7b": "facebook/opt-6.7b",
}


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that writes the files."""
    spec = importlib.util.spec_from_file_location("paper_make", FOLDER / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_there_is_a_file_for_every_part_of_the_study():
    main_table = {f"{data}-{model}" for data, model in itertools.product(DATA, MODELS)}
    types = {f"types-{data}-llama2-7b" for data in ("alpaca", "evol-instruct", "open-platypus")}
    assert set(FILES) == main_table | types


def test_the_files_are_what_the_table_and_the_plans_say(maker: ModuleType):
    studies = {study.name: study for study in maker.studies()}
    assert set(studies) == set(FILES)
    for name, study in studies.items():
        current = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8") == maker.text(study)
        assert current, f"{name}.yaml differs; write it again: python search_spaces/paper/make.py"


@pytest.mark.parametrize("name", FILES)
def test_a_file_takes_the_papers_arms_settings_decoding_and_prompts(name: str):
    sweep, _ = load_sweep(f"paper/{name}")
    trial = resolve(sweep, {"noise.type": "none"})
    data, model = next((d, m) for d in DATA for m in MODELS if name.endswith(f"{d}-{m}"))
    assert (trial.data.train, trial.model.name) == (data, MODELS[model])
    arms = ["none", "neftune", "symnoise"]
    if name.startswith("types-"):
        arms[2:2] = ["gaussian", "bernoulli"]
    assert list(Arms.of(sweep).values) == arms
    assert sweep.parameters["noise.alpha"].choices == (5, 10, 15)
    assert sweep.confirm.arms == len(arms) - 1
    assert ("symnoise", "neftune") in sweep.confirm.contrasts
    optim, train = trial.optim, trial.train
    assert (optim.lr, optim.schedule, optim.warmup_ratio, optim.weight_decay) == (
        *(5e-5, "cosine", 0.03, 0.0),
    )
    assert (train.num_epochs, train.global_batch_size, trial.data.max_length) == (3, 128, 512)
    assert (trial.generate.temperature, trial.generate.repetition_penalty) == (0, 1.2)
    assert trial.generate.max_new_tokens + trial.data.max_length == 2048
    assert PRESETS[str(trial.data.eval_prompts)] == ("tatsu-lab/alpaca_eval", "alpaca_eval.json")
    assert trial.data.template == ("vicuna" if data == "sharegpt" else "alpaca")


@pytest.mark.parametrize("model", MODELS)
def test_the_models_are_of_the_published_sizes(model: str, capsys: pytest.CaptureFixture[str]):
    given = ["--rows", "52002", "--row-tokens", "168", "--teraflops", "125", "--gpu-memory", "80"]
    file = FOLDER / "models" / f"{model}.json"
    space = f"paper/alpaca-{model}"
    assert main(["plan", space, *given, "--model-config", str(file), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    sizes = {"opt-6.7b": 6_658_473_984}
    for forecast in planned["forecasts"]:
        assert forecast["num_parameters"] == sizes.get(model, 6_738_415_616)
        assert forecast["num_steps"] == 1_218  # 52,002 rows, 3 epochs, batches of 128
        assert forecast["fits"]
    assert planned["confirmation"]["num_prompts"] == 604  # three quarters of 805


def test_the_page_shows_the_hours_that_the_plans_give(maker: ModuleType):
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    (first,) = (study for study in maker.studies() if study.name == "alpaca-llama2-7b")
    for row in (*maker.hours(first), *maker.costs()):
        assert f"{row}\n" in page, "python search_spaces/paper/make.py prints the rows"


@pytest.mark.parametrize("annotator", ["alpaca_eval_gpt4", "chatgpt_fn"])
def test_both_judges_of_the_paper_are_known_by_name(
    annotator: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "no-call-is-made")
    sweep, _ = load_sweep("paper/alpaca-llama2-7b", [f"judge.model={annotator}"])
    check_settings(resolve(sweep, {"noise.type": "none"}).judge)
