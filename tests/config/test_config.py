"""Configurations are complete, strict and frozen; a mistake is one line that names its place."""

import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from symnoise_ray.config import NoiseConfig, Parameter, SweepConfig, TrialConfig
from symnoise_ray.config.loading import (
    find_space,
    load_sweep,
    load_trial,
    parse_override,
    read_yaml,
    schema,
    shipped_spaces,
)
from symnoise_ray.errors import UserError
from symnoise_ray.noise.types import NOISES
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.parameters import leaf_paths, resolve
from tests.conftest import ROOT

SHIPPED = sorted((ROOT / "search_spaces").rglob("*.yaml"))

SPACE = """\
name: small
trial:
  model: {name: demo}
  noise: {scale: matched}
parameters:
  noise.type: {type: categorical, choices: [neftune, symnoise]}
  noise.alpha:
    type: float
    low: 1
    high: 20
    log: true
  optim.lr: {type: float, low: 1e-4, high: 1e-2, log: true}
baselines:
  - {noise.type: none, optim.lr: 3e-3}
search: {num_trials: 4}
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a search space to a file."""

    def write(text: str = SPACE) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def check(path: Path, *overrides: str) -> SweepConfig:
    """Load and check a search space, as every command does."""
    sweep, document = load_sweep(str(path), overrides)
    check_sweep(sweep, document)
    return sweep


# Files


def test_there_are_shipped_search_spaces() -> None:
    assert SHIPPED
    assert {"quickstart", "paper/alpaca-llama2-7b"} <= set(shipped_spaces())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_search_space_loads_and_holds(path: Path) -> None:
    assert check(path).name == path.stem


def test_a_space_is_found_by_path_or_by_shipped_name(space_file: Callable[..., Path]) -> None:
    path = space_file()
    assert find_space(str(path)) == path
    assert find_space("quickstart") == shipped_spaces()["quickstart"]
    assert find_space("paper/alpaca-opt-6.7b") == ROOT / "search_spaces/paper/alpaca-opt-6.7b.yaml"
    with pytest.raises(UserError, match=r"must be a file or one of the shipped names \(.*quickst"):
        find_space("quickstrat")


def test_a_missing_trial_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: the configuration file must exist"):
        load_trial(tmp_path / "absent.yaml")


def test_a_file_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.yaml: must be readable UTF-8 text, but"):
        load_sweep(str(path))


# YAML 1.2


def test_numbers_and_words_are_those_of_yaml_1_2() -> None:
    text = "{a: 1e-4, b: no, c: off, d: 010, e: true, f: null, g: 1_0, h: '1e-4', i: 2.5E+3}"
    values = read_yaml(text, "x").values
    assert values["a"] == 1e-4
    assert type(values["a"]) is float
    assert (values["b"], values["c"]) == ("no", "off")
    assert values["d"] == 10
    assert values["e"] is True
    assert values["f"] is None
    assert values["h"] == "1e-4"
    assert values["i"] == 2500.0


def test_values_are_plain_python() -> None:
    values = read_yaml("a: [1, 2.0, x, {b: 0x10}]", "x").values
    assert values == {"a": [1, 2.0, "x", {"b": 16}]}
    kinds = [type(value) for value in values["a"]]
    assert kinds == [int, float, str, dict]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", r"^s\.yaml:2: must be valid YAML, but .*duplicate key"),
        ("trial:\n\tmodel: {}\n", r"^s\.yaml:2: must be valid YAML, but .*'\\t'"),
        ("name: a\ntrial: {model: [}\n", r"^s\.yaml:2: must be valid YAML, but"),
        ("name: 'a\n", r"^s\.yaml:\d: must be valid YAML, but"),
        ("- a\n- b\n", r"^s\.yaml: must hold a mapping of settings, but got CommentedSeq$"),
        ("", r"^s\.yaml: must hold a mapping of settings, but got NoneType$"),
        ("name: a\x07\n", r"^s\.yaml.*: must be valid YAML, but"),
        ("a: 1\n---\nb: 2\n", r"^s\.yaml:2: must be valid YAML, but"),
    ],
    ids=["twice", "tab", "bracket", "quote", "list", "empty", "control", "two"],
)
def test_broken_yaml_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_yaml(text, "s.yaml")
    assert "\n" not in str(error.value)


def test_anchors_and_merge_keys_are_plain_settings() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\n"
    assert read_yaml(text, "s.yaml").values["more"] == {"a": 1, "b": 3}


# Mistakes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("search:", "serach:", r"small\.yaml:15: 'serach' is not a setting.* mean 'search'\?"),
        ("num_trials: 4", "num_trails: 4", r":15: 'search.num_trails' .* mean 'num_trials'\?"),
        ("model: {name", "modle: {name", r":3: 'modle.name' is not a .* mean 'model.name'\?"),
        ("scale: mat", "scael: mat", r":4: 'noise.scael' is not a .* mean 'noise.scale'\?"),
        ("high: 20", "hihg: 20", r":10: 'parameters.noise.alpha.hihg' is not .* mean 'high'\?"),
        ("  noise.alpha:", "  noise.alhpa:", r":7: 'noise.alhpa' is not .* mean 'noise.alpha'\?"),
        ("none, optim.lr", "none, optim.rl", r":14: 'optim.rl' is not a .* mean 'optim.lr'\?"),
    ],
    ids=["sweep", "section", "trial", "trial-setting", "parameter", "path", "baseline"],
)
def test_an_unknown_key_at_any_level_is_reported_with_line_and_nearest_name(
    space_file: Callable[..., Path], old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(space_file(SPACE.replace(old, new)))


def test_a_key_that_is_near_nothing_is_answered_with_what_is_known(
    space_file: Callable[..., Path],
) -> None:
    path = space_file(SPACE.replace("num_trials: 4", "zzzzzz: 4"))
    with pytest.raises(
        UserError, match=r"Known here: early_exit, num_trials, opponents, sampler, seed\."
    ):
        check(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "num_trials: 4",
            "num_trials: four",
            r":15: search.num_trials: .*whole number.*got 'four'",
        ),
        (
            "num_trials: 4",
            "num_trials: 2.5",
            r":15: search.num_trials: .*whole number.*got 2.5",
        ),
        ("scale: matched", "scale: no", r":4: noise.scale: must be .*published.*, but got 'no'"),
        ("low: 1e-4", "low: tiny", r":12: parameters.optim.lr.low: .*number.*got 'tiny'"),
        ("type: none", "type: non", r":14: noise.type: .*'none'.* got 'non'"),
        (
            "model: {name: demo}",
            "model: demo",
            r":3: model: must be a mapping of .*got 'demo'",
        ),
        ("name: small", "name: a/b", r":1: name: .*pattern.* got 'a/b'"),
        ("name: small", "name: ''", r":1: name: .*pattern.* got ''"),
    ],
)
def test_a_value_of_the_wrong_kind_is_reported_with_line_and_value(
    space_file: Callable[..., Path], old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(space_file(SPACE.replace(old, new)))


def test_a_truth_value_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text("optim: {lr: true}\n")
    with pytest.raises(UserError, match=r"trial\.yaml:1: optim\.lr: .*number.*True"):
        load_trial(path)


def test_a_trial_file_is_checked_like_a_space(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text("noise:\n  type: symnoise\n  alpa: 5\n")
    with pytest.raises(UserError, match=r"trial\.yaml:3: 'noise\.alpa' is not a .* mean 'alpha'\?"):
        load_trial(path)
    path.write_text("noise:\n  type: symnoise\n  alpha: 5\n")
    assert load_trial(path, ["noise.alpha=7"]).noise.alpha == 7


# Overrides


def test_overrides_are_read_as_yaml() -> None:
    assert parse_override("optim.lr=1e-4") == (("optim", "lr"), 1e-4)
    assert parse_override(" a.b = [x, 1] ") == (("a", "b"), ["x", 1])
    assert parse_override("a=no") == (("a",), "no")
    assert parse_override("a=") == (("a",), None)
    assert parse_override("a=b=c") == (("a",), "b=c")


def test_overrides_reach_the_sweep_the_trial_and_the_parameters(
    space_file: Callable[..., Path],
) -> None:
    sweep = check(
        space_file(),
        "search.num_trials=9",
        "train.max_steps=3",
        "trial.noise.length=padded",
        "parameters.noise.alpha.low=2",
        "parameters.noise.type.choices=[symnoise]",
        "parameters.train.seed={type: int, low: 0, high: 3}",
        "model={dtype: bf16}",
        "name=other",
    )
    assert sweep.name == "other"
    assert sweep.search.num_trials == 9
    assert sweep.trial["train"] == {"max_steps": 3}
    assert sweep.trial["noise"] == {"scale": "matched", "length": "padded"}
    assert sweep.trial["model"] == {"dtype": "bf16"}
    assert sweep.parameters["noise.alpha"].low == 2
    assert sweep.parameters["noise.alpha"].high == 20
    assert sweep.parameters["noise.type"].choices == ("symnoise",)
    assert sweep.parameters["train.seed"].high == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("noise.alpha", r"an override must be key=value, but got 'noise\.alpha'"),
        ("=3", r"an override must be key=value, but got '=3'"),
        ("oprim.lr=1", r"override oprim\.lr=1: 'oprim' is not a section.* mean 'optim'\?"),
        ("train.sede=1", r"override train\.sede=1: 'train\.sede' .* mean 'train\.seed'\?"),
        ("search.num_trials=x", r"override search\.num_trials=x: search\.num_trials: .*got 'x'"),
        ("name.first=x", r"name\.first: name is a value, not a section"),
        ("train.seed=[", r"train\.seed=\[:1: must be valid YAML, but"),
        ("parameters.noise.alpha.lwo=1", r"override .*'parameters\.noise\.alpha\.lwo' .* 'low'\?"),
        ("train=5", r"override train=5: train: must be a mapping of its settings, but got 5"),
        ("noise=5", r"noise"),
    ],
)
def test_a_bad_override_is_reported_with_its_text(
    space_file: Callable[..., Path], override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(space_file(), override)


def test_an_override_that_the_trial_refuses_is_named(space_file: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"override train\.seed=-1: train\.seed: .*got -1"):
        check(space_file(), "train.seed=-1")


# The models themselves


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and every section below it."""
    yield model
    for field in model.model_fields.values():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from sections(annotation)


def test_every_setting_says_what_it_means() -> None:
    for model in {*sections(TrialConfig), *sections(SweepConfig), Parameter}:
        for name, field in model.model_fields.items():
            assert len(field.description or "") > 5, f"{model.__name__}.{name} has no docstring"


def test_settings_are_frozen() -> None:
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.train = None  # type: ignore[misc,assignment]
    with pytest.raises(ValidationError, match="frozen"):
        config.train.seed = 3  # type: ignore[misc]


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        TrialConfig.model_validate({"noise": {"beta": 1}})


def test_a_trial_and_a_sweep_are_hashable_or_picklable_as_needed(
    space_file: Callable[..., Path],
) -> None:
    assert hash(TrialConfig()) == hash(TrialConfig())
    sweep = check(space_file())
    assert pickle.loads(pickle.dumps(sweep)) == sweep


def test_a_trial_written_as_json_is_read_again_unchanged(tmp_path: Path) -> None:
    config = TrialConfig.model_validate(
        {
            "noise": {"type": "symnoise", "alpha": 5},
            "optim": {"lr": 1e-4, "betas": [0.9, 0.95]},
            "data": {"train": "rows.json", "eval_prompts": "p.jsonl", "max_train_rows": 7},
        }
    )
    text = json.dumps(config.model_dump(mode="json"))
    assert TrialConfig.model_validate_json(text) == config
    path = tmp_path / "config.json"
    path.write_text(text)
    assert load_trial(path) == config


def test_equal_trials_have_equal_digests_and_others_have_others(
    space_file: Callable[..., Path],
) -> None:
    sweep = check(space_file())
    point = {"noise.type": "symnoise", "noise.alpha": 5, "optim.lr": 3e-3}
    reversed_point = dict(reversed(point.items()))
    assert resolve(sweep, point).digest() == resolve(sweep, reversed_point).digest()
    digests = {
        resolve(sweep, {**point, **change}).digest()
        for change in (
            {},
            {"noise.alpha": 5.0000001},
            {"noise.type": "neftune"},
            {"train.seed": 1},
            {"data.prompts": "confirm"},
        )
    }
    assert len(digests) == 5


def test_an_integer_alpha_is_the_same_trial_as_its_float() -> None:
    whole = NoiseConfig(type="symnoise", alpha=5)
    assert TrialConfig(noise=whole).digest() == (
        TrialConfig(noise=NoiseConfig(type="symnoise", alpha=5.0)).digest()
    )


# What must hold


def test_the_noise_types_of_the_configuration_are_those_of_the_noise() -> None:
    types = NoiseConfig.model_json_schema()["properties"]["type"]["enum"]
    assert types == list(NOISES)


def test_uniform_is_another_word_for_neftune() -> None:
    assert NoiseConfig.model_validate({"type": "uniform", "alpha": 5}).type == "neftune"


@pytest.mark.parametrize("alpha", [-1, math.nan, math.inf, -math.inf, "strong"])
def test_alpha_is_a_finite_number_that_is_not_negative(alpha: Any) -> None:
    with pytest.raises(ValidationError, match=r"alpha[\s\S]*(greater than|finite|number)"):
        NoiseConfig(type="symnoise", alpha=alpha)


@pytest.mark.parametrize("noise_type", [name for name, noise in NOISES.items() if noise.law])
def test_a_type_that_adds_noise_needs_alpha_and_zero_is_one(noise_type: Any) -> None:
    with pytest.raises(ValidationError, match=f"alpha must be given for noise.type={noise_type}"):
        NoiseConfig(type=noise_type)
    assert NoiseConfig(type=noise_type, alpha=0).alpha == 0


@pytest.mark.parametrize(
    "noise_type", [name for name, noise in NOISES.items() if noise.law is None]
)
def test_alpha_has_no_meaning_for_types_without_noise(noise_type: Any) -> None:
    with pytest.raises(ValidationError, match=f"no meaning for noise.type={noise_type}.*alpha=5"):
        NoiseConfig(type=noise_type, alpha=5)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "branch-with-" + "x" * 28])
def test_remote_code_needs_a_pinned_revision(revision: str | None) -> None:
    settings = {"model": {"name": "a/b", "trust_remote_code": True, "revision": revision}}
    with pytest.raises(ValidationError, match=r"model\.revision to be a 40-digit commit"):
        TrialConfig.model_validate(settings)
    settings["model"]["revision"] = "0123456789abcdef" * 2 + "01234567"
    assert TrialConfig.model_validate(settings).model.trust_remote_code


def test_own_training_rows_need_own_prompts() -> None:
    with pytest.raises(ValidationError, match=r"data\.eval_prompts must be given .*'rows\.json'"):
        TrialConfig.model_validate({"data": {"train": "rows.json"}})


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("optim", {"lr": 0}),
        ("optim", {"lr": math.inf}),
        ("optim", {"warmup_ratio": 1.0}),
        ("optim", {"betas": [0.9, 1.5]}),
        ("optim", {"betas": [0.9]}),
        ("optim", {"eps": math.inf}),
        ("train", {"num_epochs": 0}),
        ("train", {"max_steps": 0}),
        ("train", {"global_batch_size": 0}),
        ("train", {"seed": -1}),
        ("train", {"zero_stage": 4}),
        ("train", {"offload": "disk"}),
        ("train", {"deepspeed": "absent.json"}),
        ("train", {"deepspeed": "{}, {}"}),
        ("train", {"deepspeed": 3}),
        ("lora", {"rank": 0}),
        ("lora", {"target_modules": [], "rank": 4}),
        ("data", {"max_length": 2}),
        ("generate", {"repetition_penalty": 0}),
    ],
)
def test_a_value_that_cannot_work_is_refused(section: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{section}.{next(iter(settings))}"):
        TrialConfig.model_validate({section: settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"offload": "optimizer"}}, r"optimizer needs train\.zero_stage .* but got 0"),
        ({"train": {"offload": "all"}}, r"train\.offload=all needs train\.zero_stage=3, but got 0"),
        ({"train": {"offload": "all", "zero_stage": 2}}, r"needs train\.zero_stage=3, but got 2"),
        ({"train": {"compile": True, "zero_stage": 3}}, r"train\.compile=true needs .* but got 3"),
        ({"lora": {"alpha": 8}}, r"lora\.alpha has no meaning without lora\.rank, but got 8"),
        (
            {"lora": {"merge": False}},
            r"lora\.merge has no meaning without lora\.rank, but got False",
        ),
        ({"lora": {"target_modules": ["q_proj"]}}, r"lora\.target_modules has no meaning without"),
        ({"lora": {"rank": 4, "quantize": "nf4"}}, r"nf4 needs lora\.merge=false, but got true"),
        (
            {
                "lora": {"rank": 4, "quantize": "nf4", "merge": False},
                "train": {"zero_stage": 3},
            },
            r"lora\.quantize=nf4 needs train\.zero_stage to be 0, 1 or 2, but got 3",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TrialConfig.model_validate(settings)


def test_settings_that_belong_together_are_taken_and_survive_their_file() -> None:
    lora = {"rank": 4, "quantize": "nf4", "merge": False, "target_modules": ["q_proj", "v_proj"]}
    train = {"zero_stage": 3, "offload": "all", "gradient_checkpointing": True}
    for settings in ({"lora": lora, "train": {"zero_stage": 2}}, {"train": train}, {}):
        config = TrialConfig.model_validate(settings)
        assert TrialConfig.model_validate_json(config.model_dump_json()) == config


# A user's own DeepSpeed settings


def with_deepspeed(value: Any, **settings: dict[str, Any]) -> TrialConfig:
    """A trial with further DeepSpeed settings, at ZeRO 2 unless said otherwise."""
    train = {"zero_stage": 2, **settings.pop("train", {})}
    return TrialConfig.model_validate({"train": {**train, "deepspeed": value}, **settings})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_batch_size": 64}, r"train_batch_size=64 contradicts train\.global_batch_size=128"),
        (
            {"train_micro_batch_size_per_gpu": 1},
            r"per_gpu=1 contradicts train\.micro_batch_size=16; make them equal or write \"auto\"",
        ),
        (
            {"gradient_accumulation_steps": 4},
            r"steps=4 contradicts train\.global_batch_size=128 and train\.micro_batch_size=16",
        ),
        ({"gradient_clipping": 0.5}, r"gradient_clipping=0\.5 contradicts optim\.max_grad_norm=1"),
        ({"bf16": {"enabled": True}}, r"bf16\.enabled=true contradicts model\.dtype=fp32"),
        ({"fp16": {"enabled": True}}, r"fp16\.enabled=true contradicts model\.dtype=fp32"),
        ({"zero_optimization": {"stage": 3}}, r"stage=3 contradicts train\.zero_stage=2"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            r'offload_optimizer\.device="nvme" contradicts train\.offload=none',
        ),
        ({"optimizer": {"type": "Lion"}}, r'optimizer\.type="Lion" contradicts the trial'),
        ({"optimizer": {"params": {"lr": "3e-4"}}}, r'lr="3e-4" contradicts optim\.lr=5e-05'),
        ({"scheduler": {"type": "WarmupLR"}}, r'scheduler\.type="WarmupLR" has no place here'),
    ],
)
def test_a_deepspeed_setting_that_contradicts_the_trial_is_refused_with_both_values(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        with_deepspeed(given)


def test_gradients_are_added_up_in_fp32_where_deepspeed_can() -> None:
    given = {"data_types": {"grad_accum_dtype": "fp32"}}
    bf16 = {"dtype": "bf16"}
    for stage in (1, 2, 3):
        assert with_deepspeed(given, train={"zero_stage": stage}, model=bf16).train.deepspeed
    told = (
        r'data_types\.grad_accum_dtype="fp32" contradicts model\.dtype=bf16, in which '
        r"train\.zero_stage=0 adds up gradients"
    )
    with pytest.raises(ValidationError, match=told):
        with_deepspeed(given, train={"zero_stage": 0}, model=bf16)
    assert with_deepspeed(given, train={"zero_stage": 0}).train.deepspeed


@pytest.mark.parametrize(
    ("given", "key", "shown"),
    [
        ({"bf16": True}, "bf16", "true"),
        ({"fp16": True}, "fp16", "true"),
        ({"amp": [1]}, "amp", r"\[1\]"),
        ({"data_types": "fp32"}, "data_types", '"fp32"'),
        ({"zero_optimization": True}, "zero_optimization", "true"),
        ({"zero_optimization": None}, "zero_optimization", "null"),
        (
            {"zero_optimization": {"offload_optimizer": "cpu"}},
            r"zero_optimization\.offload_optimizer",
            '"cpu"',
        ),
        ({"optimizer": {"params": 3}}, r"optimizer\.params", "3"),
    ],
)
def test_a_deepspeed_section_that_is_no_mapping_is_refused(
    given: dict[str, Any], key: str, shown: str
) -> None:
    told = rf"train\.deepspeed: {key} must be a mapping of settings, but got {shown}; write one"
    with pytest.raises(ValidationError, match=told):
        with_deepspeed(given, train={"offload": "optimizer"})


@pytest.mark.parametrize("empty", ["bf16", "fp16", "zero_optimization"])
def test_a_deepspeed_section_may_be_empty_or_open(empty: str) -> None:
    for value in ({}, "auto"):
        assert with_deepspeed({empty: value}).train.deepspeed is not None


def test_a_deepspeed_file_may_say_what_the_trial_says_or_leave_it_open() -> None:
    agreeing = {
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": 1.0,
        "fp16": {"enabled": False},
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
        "optimizer": {"type": "AdamW", "params": {"lr": "5e-5", "betas": [0.9, 0.999]}},
        "scheduler": {"params": {"warmup_num_steps": "auto"}},
    }
    config = with_deepspeed(agreeing, train={"offload": "optimizer"}, model={"dtype": "bf16"})
    assert config.train.deepspeed == json.dumps(agreeing, sort_keys=True, separators=(",", ":"))


def test_the_content_of_a_deepspeed_file_is_part_of_the_trial_and_its_name_is_not(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(
        '{"zero_optimization": {"reduce_bucket_size": 1000}, "wall_clock_breakdown": 1}'
    )
    second.write_text('{"wall_clock_breakdown":1,"zero_optimization":{"reduce_bucket_size":1000}}')
    by_first, by_second = with_deepspeed(str(first)), with_deepspeed(str(second))
    assert by_first.digest() == by_second.digest()
    second.write_text('{"zero_optimization": {"reduce_bucket_size": 2000}}')
    assert with_deepspeed(str(second)).digest() != by_first.digest()
    assert TrialConfig.model_validate_json(by_first.model_dump_json()) == by_first


# Schema


def test_the_schema_is_valid_and_accepts_every_shipped_space() -> None:
    tree = schema()
    validator = jsonschema.Draft202012Validator(tree)
    validator.check_schema(tree)
    for path in SHIPPED:
        validator.validate(read_yaml(path.read_text(encoding="utf-8"), str(path)).values)
    with pytest.raises(jsonschema.ValidationError, match="alpa"):
        validator.validate({"name": "x", "trial": {"noise": {"alpa": 1}}})


def test_the_schema_describes_every_trial_setting() -> None:
    tree = schema()
    trial = tree["properties"]["trial"]
    for path in leaf_paths():
        section, name = path.split(".")
        reference = trial["properties"][section]
        target = reference.get("$ref") or reference["allOf"][0]["$ref"]
        settings = tree["$defs"][target.rsplit("/", 1)[-1]]["properties"]
        assert settings[name]["description"], path
    assert "noise.alpha" in set(leaf_paths())
    json.dumps(tree, allow_nan=False)
