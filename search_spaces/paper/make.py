"""Writes the spaces of the SymNoise paper's study beside this file, all from the tables below.

In: the tables. Out: one YAML file per study, with its cost by the arithmetic of
`symnoise-ray plan`. Run `python search_spaces/paper/make.py` after a change; a test compares.
The figures "reported" are from arXiv 2310.05914 (plain and NEFTune) and from arXiv 2312.01523
(SymNoise, where its tables could be read). Win rates are in percent.
"""

from __future__ import annotations

import tempfile
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from symnoise_ray.preflight.forecast import Options, gpu_hours
from symnoise_ray.preflight.plan import Plan, plan

HERE = Path(__file__).parent
TERAFLOPS = 125
"""What a GPU is taken to reach: 40 % of the 312 that the data sheet of NVIDIA's A100 names."""
GPUS = 8


@dataclass(frozen=True)
class Data:
    """A training set: its preset, size, and how long its rows are taken to be.

    `row_tokens` is a quarter of the mean characters of an answer (270, 1356, 1277 and 649 in table
    4 of arXiv 2310.05914) and 100 for the request and the template, or the cut at 512 where
    requests or conversations are long too. `num_words` is the paper's cut for diversity.
    """

    title: str
    preset: str
    rows: int
    row_tokens: int
    num_words: int
    template: str = "alpaca"
    on_bad_row: str = "error"


@dataclass(frozen=True)
class Model:
    """A base model by its name on the hub."""

    title: str
    name: str


DATA = {
    "alpaca": Data("Alpaca", "alpaca", 52_002, 168, 50),
    "evol-instruct": Data("Evol-Instruct", "evol-instruct", 70_000, 512, 100),
    "sharegpt": Data("ShareGPT", "sharegpt", 94_145, 512, 150, "vicuna", "skip"),
    "open-platypus": Data("OpenPlatypus", "open-platypus", 24_926, 262, 150),
}
MODELS = {
    "llama1-7b": Model("LLaMA-1-7B", "huggyllama/llama-7b"),
    "llama2-7b": Model("LLaMA-2-7B", "meta-llama/Llama-2-7b-hf"),
    "opt-6.7b": Model("OPT-6.7B", "facebook/opt-6.7b"),
}
GPT4 = {
    "alpaca": "29.79 plain, 64.69 NEFTune, 69.04 SymNoise",
    "evol-instruct": "70.34 plain, 79.60 NEFTune; SymNoise could not be read",
    "sharegpt": "68.74 plain, 76.28 NEFTune, 78.67 SymNoise",
    "open-platypus": "62.00 plain, 70.61 NEFTune; SymNoise could not be read",
}
"""LLaMA-2-7B, judged by GPT-4 against text-davinci-003."""
CHATGPT = {
    ("alpaca", "opt-6.7b"): "41.4 plain, 48.7 NEFTune",
    ("alpaca", "llama1-7b"): "48.5 plain, 61.7 NEFTune",
    ("evol-instruct", "opt-6.7b"): "52.2 plain, 55.5 NEFTune",
    ("evol-instruct", "llama1-7b"): "62.3 plain, 67.5 NEFTune",
    ("open-platypus", "opt-6.7b"): "45.7 plain, 45.8 NEFTune",
    ("open-platypus", "llama1-7b"): "51.2 plain, 56.9 NEFTune",
    ("sharegpt", "opt-6.7b"): "53.4 plain, 54.3 NEFTune",
    ("sharegpt", "llama1-7b"): "62.9 plain, 63.6 NEFTune",
}
"""The other models, judged by ChatGPT; SymNoise is said to be above NEFTune everywhere."""
TYPES = {
    "alpaca": "none 48.26, uniform 62.55, 61.18, 61.86 (alpha 5, 10, 15), Gaussian 60.93 (5)",
    "evol-instruct": "none 62.55, uniform 67.58, 65.59, 66.58 (alpha 5, 10, 15), Gaussian 65.09 "
    "(5)",
    "open-platypus": "none 57.20, uniform 60.99, 60.62, 61.74 (alpha 5, 10, 15), Gaussian 59.13 "
    "(5)",
}
"""LLaMA-2-7B, judged by ChatGPT; one-sided Bernoulli noise is said to be below SymNoise."""


@dataclass(frozen=True)
class Study:
    """One file: what is trained on what, the arms, and what was reported of it."""

    name: str
    data: Data
    model: str
    arms: tuple[str, ...]
    asks: str
    reported: str
    contrasts: str

    @property
    def noisy(self) -> str:
        """The arms that have a strength."""
        return ", ".join(self.arms[1:])


def studies() -> list[Study]:
    """The main table of the paper, then its table of types and strengths."""
    main = [_main(data, model) for data in DATA for model in MODELS]
    return main + [_types(data) for data in TYPES]


def _main(data: str, model: str) -> Study:
    reported = f"{GPT4[data]} (GPT-4)" if model == "llama2-7b" else ""
    if not reported:
        reported = f"{CHATGPT[data, model]}; SymNoise above NEFTune (ChatGPT)"
    return Study(
        f"{data}-{model}",
        DATA[data],
        model,
        ("none", "neftune", "symnoise"),
        f"Does SymNoise beat NEFTune and plain fine-tuning of {MODELS[model].title} on "
        f"{DATA[data].title}?",
        reported,
        "[[symnoise, neftune]]",
    )


def _types(data: str) -> Study:
    return Study(
        f"types-{data}-llama2-7b",
        DATA[data],
        "llama2-7b",
        ("none", "neftune", "gaussian", "bernoulli", "symnoise"),
        f"Which law of noise, and does the opposing half matter, for LLaMA-2-7B on "
        f"{DATA[data].title}?",
        f"{TYPES[data]}; Bernoulli below SymNoise (ChatGPT)",
        "[[symnoise, neftune], [symnoise, bernoulli]]",
    )


def space(study: Study) -> str:
    """The space without the words on top."""
    data = study.data
    bad_rows = "" if data.on_bad_row == "error" else f", on_bad_row: {data.on_bad_row}"
    return f"""\
name: {study.name}
question: {{treatment: noise.type, reference: none, effect: 0.03}}
trial:
  model: {{name: {MODELS[study.model].name}, dtype: bf16}}
  data:
    {{train: {data.preset}, eval_prompts: alpaca-eval, confirm_prompts: held_back,
     template: {data.template}, max_length: 512{bad_rows}}}
  optim: {{schedule: cosine, warmup_ratio: 0.03, weight_decay: 0, max_grad_norm: 1}}
  train:
    {{num_epochs: 3, global_batch_size: 128, micro_batch_size: 4, zero_stage: 2}}
  generate: {{max_new_tokens: 1536, repetition_penalty: 1.2}}
  answers: {{num_words: {data.num_words}, formula: published}}
  judge: {{type: alpaca_eval, model: alpaca_eval_gpt4}}
parameters:
  noise.type: {{type: categorical, choices: [{", ".join(study.arms)}]}}
  noise.alpha:
    {{type: categorical, choices: [5, 10, 15], when: {{noise.type: [{study.noisy}]}}}}
baselines:
  - {{noise.type: none}}
search: {{sampler: grid}}
confirm: {{arms: {len(study.arms) - 1}, looks: [3, 5, 8], contrasts: {study.contrasts}}}
workers: {{num_workers: {GPUS}, cpus_per_worker: 8, gpus_per_worker: 1}}
"""


def planned(study: Study) -> Plan:
    """The forecast of a study, on GPUs of 80 GiB."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "space.yaml"
        file.write_text(space(study), encoding="utf-8")
        options = Options(
            num_rows=study.data.rows,
            row_tokens=study.data.row_tokens,
            model_config=HERE / "models" / f"{study.model}.json",
            gpu_memory=80,
            teraflops=TERAFLOPS,
        )
        return plan(str(file), (), options)


@dataclass(frozen=True)
class Cost:
    """Trainings, and their GPU-hours at `TERAFLOPS`, by the arithmetic of the plan."""

    plain: float
    pair: float
    searched: int
    search: float
    confirmed: int
    confirm: float
    verdicts: int


@cache
def cost(study: Study) -> Cost:
    """The cost of a study, if no arm stops before its last look."""
    found = planned(study)
    by_arm = {}
    for _, _, need in found.forecasts:
        hours = gpu_hours(need, found.options)
        assert hours is not None
        by_arm[sum(need.copies)] = hours
    assert found.confirmation is not None
    hours = [by_arm[2 if arm == "symnoise" else 1] for arm in study.arms]
    seeds = found.confirmation.looks[-1]
    return Cost(
        plain=by_arm[1],
        pair=by_arm[2],
        searched=found.num_trials - found.confirmation.most_trainings,
        search=hours[0] + 3 * sum(hours[1:]),
        confirmed=found.confirmation.most_trainings,
        confirm=seeds * sum(hours),
        verdicts=found.confirmation.most_calls,
    )


def text(study: Study) -> str:
    """A whole file."""
    found = cost(study)
    total = found.search + found.confirm
    paragraphs = [
        study.asks,
        f"Reported win rates over text-davinci-003 on AlpacaEval: {study.reported}. One seed each, "
        "and the strength was chosen on the prompts that were reported. Here the opponent is plain "
        "fine-tuning, on held-back prompts. NEFTune's settings stand where the SymNoise paper "
        "gives none.",
        f"Costs: {found.searched} trials, then at most {found.confirmed} to confirm. At "
        f"{TERAFLOPS} teraflop/s a GPU: {found.plain:.1f} GPU-hours a training, {found.pair:.1f} "
        f"with pairs, {total:.0f} in all, that is {total / GPUS:.0f} hours on {GPUS} GPUs. Answers "
        f"and the judge come on top: at most {found.verdicts:,} verdicts to confirm.",
        f"By: symnoise-ray plan paper/{study.name} --rows {study.data.rows} --row-tokens "
        f"{study.data.row_tokens} --teraflops {TERAFLOPS} --gpu-memory 80 --model-config "
        f"search_spaces/paper/models/{study.model}.json",
        "Look at: the win rate at equal lengths beside the raw one, since noise lengthens answers, "
        "and the contrasts. ChatGPT as the judge: judge.model=chatgpt_fn. The learning rate is the "
        "default, 5e-5, and not written down, so that it can be searched: docs/reproduce.md.",
        "Written by search_spaces/paper/make.py; change it there.",
    ]
    words = "\n".join(
        textwrap.fill(
            each,
            98,
            initial_indent="# ",
            subsequent_indent="# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for each in paragraphs
    )
    return f"# yaml-language-server: $schema=../schema.json\n{words}\n{space(study)}"


def costs() -> list[str]:
    """Rows of the table in docs/reproduce.md: GPU-hours, and hours on `GPUS`, of every file."""
    rows = []
    for study in studies():
        found = cost(study)
        total = found.search + found.confirm
        rows.append(
            f"| `paper/{study.name}` | {found.plain:.1f} | {found.pair:.1f} | {found.search:.0f} | "
            f"{found.confirm:.0f} | {total / GPUS:.0f} |"
        )
    whole = [cost(study).search + cost(study).confirm for study in studies()]
    main_table = sum(whole[: len(DATA) * len(MODELS)])
    rows.append(f"| the main table | | | | | {main_table / GPUS:.0f} |")
    rows.append(f"| all | | | | | {sum(whole) / GPUS:.0f} |")
    return rows


def hours(study: Study) -> list[str]:
    """Rows of the course of one study in docs/reproduce.md: the hours in which a part ends."""
    found, clock, rows = cost(study), 0.0, []
    seed = (found.plain * (len(study.arms) - 1) + found.pair) / GPUS
    parts = [
        ("search: plain fine-tuning, 1 trial", found.plain / GPUS),
        ("search: neftune at three strengths", 3 * found.plain / GPUS),
        ("search: symnoise at three strengths", 3 * found.pair / GPUS),
        ("confirmation: 3 seeds of three models, first look", 3 * seed),
        ("confirmation: 2 more seeds, second look", 2 * seed),
        ("confirmation: 3 more seeds, last look", 3 * seed),
    ]
    for what, spent in parts:
        rows.append(f"| {clock:.1f} to {clock + spent:.1f} | {what} |")
        clock += spent
    return rows


def main() -> None:
    """Write all files, and print the tables of docs/reproduce.md."""
    for study in studies():
        (HERE / f"{study.name}.yaml").write_text(text(study), encoding="utf-8")
    first = next(study for study in studies() if study.name == "alpaca-llama2-7b")
    print("\n".join([*hours(first), "", *costs()]))


if __name__ == "__main__":
    main()
