"""`symnoise-ray plan`: every kind of trial of a sweep is told, and so is what is not known."""

import json
from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from tests.preflight.test_forecast import LLAMA_2_7B


@pytest.fixture
def llama_2_7b(tmp_path: Path) -> Path:
    """A config.json alone, without weights."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA_2_7B))
    return file


def test_plan_tells_every_kind_of_trial_of_a_sweep(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--gpu-memory", "80"]) == 0
    text = capsys.readouterr().out
    assert "quickstart: 3 baselines, 9 searched trials" in text
    assert "002-symnoise, searched symnoise:" in text
    assert "steps: 60 of 16 rows; per step and worker 2 forward and backward passes" in text
    assert text.count("fits in 80 GiB") == 3
    assert main(["plan", "quickstart", "--json", "--teraflops", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_trials"] == 27
    names = [name for found in told["forecasts"] for name in found["trials"]]
    assert len(names) == len(set(names)) == 6
    for found in told["forecasts"]:
        sizes = found["memory_gib"]
        assert sizes["need"] == max(sizes["phases"].values())
        assert found["gpu_hours"] == pytest.approx(found["flops"] / 3.6e15)


def test_plan_says_what_it_does_not_know(
    llama_2_7b: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    trial = tmp_path / "trial.yaml"
    trial.write_text("data: {train: alpaca, eval_prompts: absent.json}\nmodel: {dtype: bf16}\n")
    given = ["plan", str(trial), "--model-config", str(llama_2_7b), "--gpu-memory", "80"]
    assert main(given) == 0
    text = capsys.readouterr().out
    assert "rows: unknown; tokens: unknown; longest row: 512 tokens" in text
    assert "not known: rows, because alpaca is not a file or folder here" in text
    assert "steps: unknown" in text
    assert "judge: unknown verdicts" in text
    assert "DOES NOT FIT in 80 GiB" in text
    assert "would fit with train.zero_stage=1 train.offload=optimizer" in text
    assert main([*given, "--rows", "52002", "--workers", "8", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["forecasts"]
    assert found["num_steps"] == 1218
    assert found["would_fit"] == {"zero_stage": 2}


def test_a_model_without_weights_and_tokenizer_can_be_planned(
    llama_2_7b: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", "quickstart", f"model.name={llama_2_7b.parent}"]) == 0
    text = capsys.readouterr().out
    assert "parameters: 6,738,415,616, of them trained 6,738,415,616" in text
    assert "rows: 576; tokens: unknown; longest row: 512 tokens" in text
    assert "has no tokenizer here; every row counts as 512" in text
    assert "GiB to spare" not in text


def test_plan_has_help_with_an_example(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "--help"])
    assert "example: symnoise-ray plan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu-memory", "0"], "--gpu-memory must be more than 0"),
        (["--workers", "2"], "a sweep has workers.num_workers"),
        (["noise.alhpa=3"], "'noise.alhpa' is not a trial setting"),
        (["model.name=./absent"], "absent: the folder of the model must exist, but there is none"),
        (["--model-config", "absent.json"], "--model-config absent.json"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_length_of_rows_that_are_not_here_gives_an_upper_bound_of_the_arithmetic(
    llama_2_7b: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["plan", "quickstart", "--model-config", str(llama_2_7b), "--json"]

    def flops(*options: str) -> float:
        assert main([*given, *options]) == 0
        found: float = json.loads(capsys.readouterr().out)["forecasts"][0]["flops"]
        return found

    short, cut = (
        flops("--rows", "576", "--row-tokens", "100"),
        flops("--rows", "576", "--row-tokens", "512"),
    )
    assert 5.12 < cut / short < 5.3  # attention grows faster than the rows
    assert flops("--rows", "576", "--row-tokens", "9999") == cut
    assert main([*given, "--row-tokens", "100"]) == 2
    assert "give --rows as well" in capsys.readouterr().err
