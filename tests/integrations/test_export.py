"""`symnoise-ray export`: a sweep's winner for other trainers, with what they cannot say."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from symnoise_ray.cli.main import main
from symnoise_ray.config import SweepConfig
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.errors import EXIT_OK, EXIT_USER
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import RESULTS, SWEEP, SweepPaths
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Candidate, Choice, Comparison, Decision, Verdict
from symnoise_ray.space.parameters import resolve
from symnoise_ray.training.corpus import token_table

POINTS: dict[str, dict[str, Any]] = {
    "none": {"noise.type": "none", "optim.lr": 5e-4},
    "neftune": {"noise.type": "neftune", "noise.alpha": 4.5, "optim.lr": 1e-3},
    "symnoise": {"noise.type": "symnoise", "noise.alpha": 5.0, "optim.lr": 2e-3},
    "gaussian": {"noise.type": "gaussian", "noise.alpha": 5.0, "optim.lr": 2e-3},
}
STEPS = {"none": 6, "neftune": 6, "symnoise": 3}
TRIAL = {
    "data": {"max_train_rows": 6, "max_length": 96},
    "train": {"global_batch_size": 12, "micro_batch_size": 4, "seed": 3},
    "optim": {"warmup_ratio": 0.4, "betas": [0.9, 0.99], "eps": 1e-6},
}


def decided(arm: str, verdict: str, win_rate: float) -> Decision:
    compared = Comparison(
        arm, win_rate, (win_rate - 0.02, win_rate + 0.02), 0.01, 0.02, 108, 5, verdict,
        opponent="best",
    )  # fmt: skip
    return Decision(arm, verdict, (compared,), label=f"{arm} at its best", looks=(3, 5))


def write(
    directory: Path,
    *decisions: Decision,
    sections: dict[str, dict[str, Any]] | None = None,
    workers: int = 1,
    **changes: Any,
) -> Path:
    """A finished sweep of four arms, of which three were trained; `gaussian` only chosen."""
    trial = {name: {**TRIAL.get(name, {}), **more} for name, more in (sections or {}).items()}
    sweep = SweepConfig.model_validate(
        {"name": "small", "trial": {**TRIAL, **trial}, "workers": {"num_workers": workers}}
    )
    choices = [
        Choice(arm, f"001-{arm}", point, "raw", (Candidate(f"001-{arm}", arm, 0.5, 0.02),))
        for arm, point in POINTS.items()
    ]
    trials = [
        TrialResult(f"confirm-{arm}", "confirm", arm=arm, params=POINTS[arm],
                    values={"num_steps": steps})
        for arm, steps in STEPS.items()
    ]  # fmt: skip
    found = SweepResult(
        SweepPaths(directory), "small", "whole", Verdict("So it is.", decisions=decisions),
        choices=tuple(choices), trials=tuple(trials),
    )  # fmt: skip
    write_json(sweep.model_dump(mode="json"), directory / SWEEP)
    write_json(replace(found, **changes).to_json(), directory / RESULTS)
    return directory


BETTER = decided("symnoise", "better", 0.56)
OPEN = decided("neftune", "cannot tell yet", 0.51)


def exported(directory: Path, trainer: str, *words: str) -> str:
    """What the command writes."""
    file = directory / "out" / "exported"
    assert main(["export", str(directory), "--to", trainer, *words, "--output", str(file)]) == 0
    return file.read_text(encoding="utf-8")


def refused(directory: Path, capsys: pytest.CaptureFixture[str], trainer: str, *words: str) -> str:
    """The one line of a refusal, which creates nothing."""
    before = sorted(directory.rglob("*"))
    output = directory / "new" / "file"
    command = ["export", str(directory), "--to", trainer, *words, "--output", str(output)]
    assert main(command) == EXIT_USER
    assert sorted(directory.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


# Which setting


@pytest.mark.parametrize(
    ("decisions", "words", "lr", "reason"),
    [
        ([BETTER, OPEN], [], 2e-3, "symnoise at its best was found better than plain fine-tuning."),
        (
            [BETTER, decided("neftune", "better", 0.6)],
            [],
            1e-3,
            "neftune at its best was found better",
        ),
        ([OPEN], [], 5e-4, "Nothing was found better than plain fine-tuning, so this is its own"),
        ([decided("neftune", "worse", 0.4)], [], 5e-4, "Nothing was found better than plain"),
        ([BETTER], ["--arm", "none"], 5e-4, "The setting of plain fine-tuning, which the others"),
        (
            [BETTER, OPEN],
            ["--arm", "neftune"],
            1e-3,
            "asked for; its verdict against plain fine-tuning is: cannot tell yet.",
        ),
        ([BETTER], ["--arm", "neftune"], 1e-3, "which was asked for; it was not confirmed."),
    ],
    ids=["better", "the best of two", "open", "worse", "reference", "open arm", "other arm"],
)
def test_the_winner_is_the_best_of_the_better_arms_else_the_reference(
    tmp_path: Path, decisions: list[Decision], words: list[str], lr: float, reason: str
) -> None:
    script = exported(write(tmp_path, *decisions), "trl", *words)
    assert f"learning_rate={lr}," in script
    assert reason in " ".join(script.replace("# ", "").split())
    assert "So it is." in script


def test_without_an_output_the_text_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, BETTER)
    assert main(["export", str(tmp_path), "--to", "trl"]) == EXIT_OK
    assert capsys.readouterr().out == exported(tmp_path, "trl")


@pytest.mark.parametrize(
    ("decisions", "words", "message"),
    [
        ([], [], "must be a sweep with a verdict, but has none: So it is. Begin a new sweep with"),
        ([BETTER], ["--arm", "sym"], "--arm must be one of none, neftune, symnoise, gaussian, but"),
        ([BETTER], ["--arm", "gaussian"], "the setting of gaussian must have a finished training"),
    ],
)
def test_a_sweep_that_speaks_for_no_setting_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    decisions: list[Decision],
    words: list[str],
    message: str,
) -> None:
    assert message in refused(write(tmp_path, *decisions), capsys, "trl", *words)


def test_a_sweep_that_was_to_confirm_and_has_not_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    settings = json.loads((tmp_path / SWEEP).read_text())
    write_json({**settings, "confirm": {"arms": 1}}, tmp_path / SWEEP)
    told = refused(tmp_path, capsys, "trl")
    assert told.endswith("So it is. Give the command that began it again, with --resume")


def test_no_sweep_and_no_trainer_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "must be the directory of a sweep" in refused(tmp_path, capsys, "trl")
    write(tmp_path, BETTER)
    assert refused(tmp_path, capsys, "ludwig") == (
        "error: --to must be one of trl, axolotl, llama-factory, alpaca_eval, but got 'ludwig'"
    )


@pytest.mark.parametrize("trainer", ["trl", "llama-factory"])
def test_no_text_of_a_sweep_becomes_code(tmp_path: Path, trainer: str) -> None:
    sentence = '"""\nimport os  # \\N{{x}}\nmax_steps: 99'
    text = exported(write(tmp_path, OPEN, verdict=Verdict(sentence, decisions=(OPEN,))), trainer)
    if trainer == "trl":
        assert calls(text)["trl.SFTConfig"]["max_steps"] == STEPS["none"]
        assert "import os" not in [line.strip() for line in text.splitlines()]
    else:
        assert yaml.safe_load(text)["max_steps"] == STEPS["none"]


# TRL


def calls(script: str) -> dict[str, dict[str, Any]]:
    """The literal arguments by name of every call in a script."""
    found: dict[str, dict[str, Any]] = {}
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Call) and node.keywords:
            given = {}
            for keyword in node.keywords:
                if keyword.arg is not None:
                    try:
                        given[keyword.arg] = ast.literal_eval(keyword.value)
                    except ValueError:
                        continue
            found[ast.unparse(node.func)] = given
    return found


def test_the_script_for_trl_has_the_winners_noise_and_settings(tmp_path: Path) -> None:
    given = calls(exported(write(tmp_path, BETTER, workers=2), "trl"))
    assert given["with_noise"] == {"type": "symnoise", "alpha": 5.0}
    told = given["trl.SFTConfig"]
    assert (told["learning_rate"], told["max_steps"], told["seed"]) == (2e-3, 3, 3)
    assert (told["lr_scheduler_type"], told["warmup_steps"]) == ("cosine", 2)
    assert (told["adam_beta1"], told["adam_beta2"], told["adam_epsilon"]) == (0.9, 0.99, 1e-6)
    # 12 rows on 2 processes: 6 each, in pieces of at most 4.
    assert told["per_device_train_batch_size"] == 3
    assert told["gradient_accumulation_steps"] == 2
    assert (told["packing"], told["max_length"], told["bf16"]) == (False, None, False)


def test_adapters_and_all_settings_of_the_noise_go_to_trl(tmp_path: Path) -> None:
    sections = {
        "lora": {"rank": 4, "target_modules": ["q_proj"], "dropout": 0.1},
        "noise": {"scale": "matched", "include_clean": True, "execution": "concat"},
        "optim": {"schedule": "constant"},
    }
    script = exported(write(tmp_path, BETTER, sections=sections), "trl")
    given = calls(script)
    assert given["peft.LoraConfig"]["target_modules"] == ["q_proj"]
    assert (given["peft.LoraConfig"]["r"], given["peft.LoraConfig"]["lora_alpha"]) == (4, 16.0)
    assert given["with_noise"] == {
        "type": "symnoise", "alpha": 5.0, "scale": "matched", "include_clean": True,
    }  # fmt: skip
    assert given["trl.SFTConfig"]["lr_scheduler_type"] == "constant_with_warmup"
    assert "The copies of a batch run one after the other here" in script


@pytest.mark.slow
def test_the_script_for_trl_trains(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    script = tmp_path / "train.py"
    write(tmp_path, BETTER)
    script.write_text(exported(tmp_path, "trl"), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"'loss': ", ran.stdout)) == STEPS["symnoise"], ran.stdout
    assert (tmp_path / "small-symnoise" / "model.safetensors").is_file()


# axolotl and LLaMA-Factory


@pytest.mark.parametrize("trainer", ["axolotl", "llama-factory"])
def test_plain_fine_tuning_is_said_in_full(tmp_path: Path, trainer: str) -> None:
    text = exported(write(tmp_path, OPEN), trainer)
    told = yaml.safe_load(text)
    assert "neftune_noise_alpha" not in told
    assert "NOT THE SAME" not in text
    assert (told["learning_rate"], told["max_steps"], told["warmup_steps"]) == (5e-4, 6, 3)
    assert told["adam_epsilon"] == 1e-6, "a number for PyYAML, which reads YAML 1.1"
    assert told["gradient_accumulation_steps"] == 3


@pytest.mark.parametrize("name", ["models/🦙-süß", "back\\slash 🦙"])
def test_a_name_with_any_sign_is_read_back_as_it_was(tmp_path: Path, name: str) -> None:
    directory = write(tmp_path, OPEN, sections={"model": {"name": name}})
    text = exported(directory, "axolotl", "--arm", "none")
    assert yaml.safe_load(text)["base_model"].endswith(name)


def test_each_trainer_gets_its_own_words(tmp_path: Path) -> None:
    sections = {"lora": {"rank": 4}, "model": {"dtype": "bf16", "attention": "eager"}}
    write(tmp_path, OPEN, sections=sections)
    one, other = (yaml.safe_load(exported(tmp_path, name)) for name in ("axolotl", "llama-factory"))
    assert (one["micro_batch_size"], other["per_device_train_batch_size"]) == (4, 4)
    assert (one["adapter"], one["lora_r"], one["lora_target_linear"]) == ("lora", 4, True)
    assert (other["finetuning_type"], other["lora_rank"], other["lora_target"]) == (
        "lora",
        4,
        "all",
    )
    assert (one["attn_implementation"], other["flash_attn"]) == ("eager", "disabled")
    assert one["bf16"] is other["bf16"] is True
    assert one["datasets"] == [{"path": "rows.jsonl", "ds_type": "json", "type": None}]
    assert other["tokenized_path"] == other["dataset"] == "rows"


@pytest.mark.parametrize("trainer", ["axolotl", "llama-factory"])
@pytest.mark.parametrize(
    ("noise", "remark"),
    [
        ({}, "THE NOISE IS NOT THE SAME. It is scaled by the length of the padded line"),
        ({"length": "padded"}, "the same law and scale, with other random numbers"),
        ({"length": "padded", "generator": "torch"}, "The noise is that of the sweep"),
    ],
)
def test_neftune_is_said_with_what_differs(
    tmp_path: Path, trainer: str, noise: dict[str, Any], remark: str
) -> None:
    write(tmp_path, decided("neftune", "better", 0.6), sections={"noise": noise})
    text = exported(tmp_path, trainer)
    assert yaml.safe_load(text)["neftune_noise_alpha"] == 4.5
    assert remark in " ".join(text.replace("# ", "").split())


@pytest.mark.parametrize("trainer", ["axolotl", "llama-factory"])
def test_other_noise_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trainer: str
) -> None:
    line = refused(write(tmp_path, BETTER), capsys, trainer)
    assert line == (
        f"error: export: {trainer} must know the noise, but has NEFTune alone, and the setting of "
        "symnoise has noise.type=symnoise; use --to trl, or --arm for another setting"
    )


@pytest.mark.parametrize("trainer", ["trl", "axolotl", "llama-factory"])
@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"deepspeed": '{"prescale_gradients": true}'}}, "train.deepspeed must not be"),
        ({"lora": {"rank": 4, "quantize": "nf4", "merge": False}}, "lora.quantize must be none"),
    ],
)
def test_a_setting_that_no_file_says_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    trainer: str,
    sections: dict[str, dict[str, Any]],
    message: str,
) -> None:
    assert message in refused(write(tmp_path, OPEN, sections=sections), capsys, trainer)


def test_the_rows_that_a_configuration_asks_for_are_those_of_the_sweep(tmp_path: Path) -> None:
    text = exported(write(tmp_path, OPEN), "axolotl")
    code = "\n".join(
        line.removeprefix("#     ") for line in text.splitlines() if line[:6] == "#     "
    )
    exec(compile(code.replace("rows.jsonl", str(tmp_path / "rows.jsonl")), "comment", "exec"), {})
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    sweep, _ = load_sweep(str(tmp_path / SWEEP))
    table = token_table(resolve(sweep, POINTS["none"]), 512, None)
    expected = [table.row(number) for number in range(len(table))]
    assert len(rows) == 6
    assert [row["input_ids"] for row in rows] == [row.input_ids.tolist() for row in expected]
    assert [row["labels"] for row in rows] == [row.labels.tolist() for row in expected]
    assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in rows)
