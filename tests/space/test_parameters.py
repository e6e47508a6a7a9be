"""The search space is Optuna's own, checked against the trial before anything starts."""

import pickle
from typing import Any

import optuna
import pytest

from symnoise_ray.config import Parameter, SweepConfig, TrialConfig
from symnoise_ray.config.loading import Document, build, read_yaml
from symnoise_ray.errors import UserError
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.design import reference_baseline, search_size
from symnoise_ray.space.parameters import Space, describe, flat, leaf_paths, resolve

optuna.logging.set_verbosity(optuna.logging.ERROR)

NOISY = ["neftune", "gaussian", "symnoise"]
TYPE = {"type": "categorical", "choices": ["none", *NOISY]}
ALPHA = {"type": "float", "low": 1, "high": 20, "log": True, "when": {"noise.type": NOISY}}
LR = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
PLAIN = {"noise.type": "none", "optim.lr": 3e-3}


def space(**parameters: dict[str, Any]) -> Space:
    """A space of parameters; double underscores stand for dots."""
    named = {name.replace("__", "."): value for name, value in parameters.items()}
    return Space({name: Parameter.model_validate(value) for name, value in named.items()})


def sweep(**values: Any) -> SweepConfig:
    """A sound sweep with some of its parts replaced."""
    sound = {
        "name": "small",
        "parameters": {"noise.type": TYPE, "noise.alpha": ALPHA, "optim.lr": LR},
        "baselines": [PLAIN],
        "search": {"num_trials": 3},
    }
    return SweepConfig.model_validate({**sound, **values})


def ask(sampled: Space, count: int = 40) -> list[dict[str, Any]]:
    """Points as a random Optuna study draws them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = []
    for _ in range(count):
        trial = study.ask()
        sampled(trial)
        points.append(trial.params)
    return points


# Sampling


def test_a_parameter_is_sampled_exactly_where_its_condition_holds() -> None:
    points = ask(space(noise__alpha=ALPHA, noise__type=TYPE, optim__lr=LR))
    assert {point["noise.type"] for point in points} == {"none", *NOISY}
    for point in points:
        assert ("noise.alpha" in point) == (point["noise.type"] != "none")
        assert 1e-4 <= point["optim.lr"] <= 1e-2


def test_conditions_chain() -> None:
    chained = space(
        train__seed={"type": "int", "low": 0, "high": 9, "when": {"noise.alpha": [2]}},
        noise__alpha={"type": "categorical", "choices": [1, 2], "when": {"noise.type": NOISY}},
        noise__type=TYPE,
    )
    assert chained.ordered() == ["noise.type", "noise.alpha", "train.seed"]
    points = ask(chained)
    assert any("train.seed" in point for point in points)
    for point in points:
        assert ("train.seed" in point) == (point.get("noise.alpha") == 2)


def test_bounds_steps_and_logarithms_are_optunas() -> None:
    study = optuna.create_study()
    trial = study.ask()
    space(
        optim__lr=LR,
        optim__warmup_ratio={"type": "float", "low": 0, "high": 0.3, "step": 0.1},
        train__seed={"type": "int", "low": 2, "high": 8, "step": 3},
        train__global_batch_size={"type": "int", "low": 1, "high": 64, "log": True},
        noise__type=TYPE,
    )(trial)
    assert trial.distributions == {
        "optim.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "optim.warmup_ratio": optuna.distributions.FloatDistribution(0, 0.3, step=0.1),
        "train.seed": optuna.distributions.IntDistribution(2, 8, step=3),
        "train.global_batch_size": optuna.distributions.IntDistribution(1, 64, log=True),
        "noise.type": optuna.distributions.CategoricalDistribution(["none", *NOISY]),
    }


def test_a_fixed_trial_is_followed() -> None:
    point = {"noise.type": "symnoise", "noise.alpha": 5.0, "optim.lr": 1e-3}
    trial = optuna.trial.FixedTrial(point)
    space(noise__type=TYPE, noise__alpha=ALPHA, optim__lr=LR)(trial)
    assert trial.params == point


def test_a_space_pickles_and_samples_the_same_afterwards() -> None:
    original = space(noise__type=TYPE, noise__alpha=ALPHA, optim__lr=LR)
    assert ask(pickle.loads(pickle.dumps(original))) == ask(original)


def test_circular_conditions_are_refused() -> None:
    circle = {
        "noise.type": {**TYPE, "when": {"optim.schedule": ["linear"]}},
        "optim.schedule": {
            "type": "categorical",
            "choices": ["linear", "cosine"],
            "when": {"noise.type": ["none"]},
        },
    }
    with pytest.raises(UserError, match=r"conditions of noise\.type, optim\.schedule form a circl"):
        check_sweep(sweep(parameters=circle))


# Grids


def test_a_grid_has_every_combination_once() -> None:
    gridded = space(
        noise__alpha={
            "type": "float",
            "low": 5,
            "high": 15,
            "step": 5,
            "when": {"noise.type": NOISY},
        },
        noise__type=TYPE,
        train__seed={"type": "int", "low": 0, "high": 1},
    )
    points = gridded.grid()
    assert len(points) == 1 * 2 + 3 * 3 * 2
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert all(gridded.contains(point) for point in points)
    assert {type(point["train.seed"]) for point in points} == {int}


def test_a_grid_includes_the_upper_end_despite_rounding() -> None:
    (values,) = [
        [point["optim.warmup_ratio"] for point in gridded.grid()]
        for gridded in [
            space(optim__warmup_ratio={"type": "float", "low": 0, "high": 0.3, "step": 0.1})
        ]
    ]
    assert values == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_grid_of_nothing_is_one_empty_point() -> None:
    assert space().grid() == [{}]


def test_a_grid_needs_steps() -> None:
    with pytest.raises(UserError, match=r"parameters\.optim\.lr: a grid needs step or categorical"):
        check_sweep(sweep(search={"sampler": "grid"}))


def test_the_size_of_a_grid_is_counted() -> None:
    parameters = {"noise.type": {"type": "categorical", "choices": ["none", "duplicate"]}}
    gridded = sweep(parameters=parameters, search={"sampler": "grid"})
    check_sweep(gridded)
    assert search_size(gridded) == 2
    assert search_size(sweep()) == 3


# What a space contains


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ({"noise.type": "none", "optim.lr": 3e-3}, True),
        ({"noise.type": "symnoise", "noise.alpha": 1, "optim.lr": 1e-2}, True),
        ({"noise.type": "symnoise", "optim.lr": 1e-3}, False),
        ({"noise.type": "none", "noise.alpha": 5.0, "optim.lr": 1e-3}, False),
        ({"noise.type": "bernoulli", "noise.alpha": 5.0, "optim.lr": 1e-3}, False),
        ({"noise.type": "symnoise", "noise.alpha": 21, "optim.lr": 1e-3}, False),
        ({"noise.type": "none", "optim.lr": 3e-3, "train.seed": 1}, False),
        ({"noise.type": "none", "optim.lr": "3e-3"}, False),
        ({"noise.type": "none", "optim.lr": True}, False),
        ({}, False),
    ],
)
def test_a_space_contains_what_optuna_could_sample(point: dict[str, Any], inside: bool) -> None:
    assert space(noise__type=TYPE, noise__alpha=ALPHA, optim__lr=LR).contains(point) is inside


def test_a_space_contains_every_point_of_its_stepped_ranges() -> None:
    stepped = space(
        optim__warmup_ratio={"type": "float", "low": 0.1, "high": 0.5, "step": 0.1},
        train__seed={"type": "int", "low": 1, "high": 7, "step": 2},
    )
    outside = [point for point in [*ask(stepped), *stepped.grid()] if not stepped.contains(point)]
    assert not outside
    assert not stepped.contains({"optim.warmup_ratio": 0.15, "train.seed": 1})
    assert not stepped.contains({"optim.warmup_ratio": 0.1, "train.seed": 2})


def test_an_integer_parameter_contains_integers_only() -> None:
    whole = space(train__seed={"type": "int", "low": 0, "high": 3})
    assert whole.contains({"train.seed": 2})
    assert not whole.contains({"train.seed": 2.5})


# Ranges


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"low": 2, "high": 1}, r"low <= high must hold, but got low=2, high=1"),
        ({"low": 0, "high": 1, "log": True}, r"low > 0 must hold when log is true, but got low=0"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, r"log and step exclude each other"),
        ({"low": 1, "high": 2, "step": 0}, r"step: .*greater than 0.* got 0"),
        ({"low": 1}, r"a float parameter needs both low and high"),
        (
            {"low": 1, "high": 2, "choices": [1]},
            r"choices belong to categorical, but type is float",
        ),
        ({"low": "9e-7", "high": "1e-7"}, r"low <= high must hold, but got low=9e-07, high=1e-07"),
        ({"low": float("nan"), "high": 1}, r"low: must be a finite number, but got nan"),
        ({"type": "int", "low": 1.5, "high": 3.5}, r"low|int"),
        ({"type": "int", "low": 1, "high": 9, "step": 0.5}, r"step|int"),
        ({"type": "categorical"}, r"needs a non-empty list of choices"),
        ({"type": "categorical", "choices": []}, r"needs a non-empty list of choices"),
        ({"type": "categorical", "choices": [1], "low": 1}, r"takes choices, not low"),
        (
            {"type": "loguniform", "low": 1, "high": 2},
            r"type: .*float, int or categorical, but got 'loguniform'",
        ),
    ],
)
def test_a_range_that_cannot_be_is_told(parameter: dict[str, Any], message: str) -> None:
    values = {
        "name": "small",
        "parameters": {"optim.lr": {"type": "float", **parameter}},
        "search": {"num_trials": 1},
    }
    with pytest.raises(UserError, match=rf"parameters\.optim\.lr.*({message})"):
        build(SweepConfig, Document(values, {}, "space.yaml"))


def test_numbers_written_as_text_become_numbers() -> None:
    parameter = Parameter.model_validate({"type": "float", "low": "1e-4", "high": "1e-2"})
    assert (parameter.low, parameter.high) == (1e-4, 1e-2)


def test_choices_keep_their_types() -> None:
    parameter = Parameter.model_validate({"type": "categorical", "choices": [1, 1.5, "1", True]})
    assert [type(choice) for choice in parameter.choices or ()] == [int, float, str, bool]


# Sweeps


def test_a_sound_sweep_holds() -> None:
    check_sweep(sweep())
    assert reference_baseline(sweep()) == 0
    assert reference_baseline(sweep(baselines=[])) is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"parameters": {"optim.rl": LR}}, r"'optim\.rl' is not a trial .* mean 'optim\.lr'\?"),
        ({"trial": {"optim": {"rl": 1}}}, r"'optim\.rl' is not a trial .* mean 'optim\.lr'\?"),
        ({"baselines": [{"optim.rl": 1}]}, r"'optim\.rl' is not a trial .* mean 'optim\.lr'\?"),
        ({"trial": {"optim": {"lr": 1}}}, r"'optim\.lr' is varied by `parameters` and held fixed"),
        ({"baselines": [{"noise.type": "none", "noise.alpha": 5}]}, r"no meaning for .*type=none"),
        ({"baselines": [{"noise.type": "neftune"}, PLAIN]}, r"alpha must be given for .*neftune"),
        ({"baselines": [{"noise.type": "none", "optim.lr": -1}]}, r"optim\.lr: .*got -1"),
        ({"baselines": []}, r"judge\.reference=baseline needs a baseline with noise\.type: none"),
        (
            {"baselines": [{"noise.type": "symnoise", "noise.alpha": 5}]},
            r"judge\.reference=baseline needs .*, but got 1 baselines without one",
        ),
        (
            {
                "trial": {"judge": {"reference": "file.json"}},
                "baselines": [],
                "confirm": {"arms": 1},
            },
            r"confirm\.arms=1 needs a baseline with noise\.type: none, but got 0 baselines",
        ),
        ({"search": {}}, r"search\.num_trials must be given for sampler tpe"),
        ({"parameters": {}}, r"search\.num_trials=3 needs `parameters`"),
        ({"parameters": {}, "baselines": [], "search": {"num_trials": 0}}, r"a sweep needs `param"),
        ({"trial": {"noise": 5}}, r"noise"),
        ({"trial": {"nose": {}}}, r"'nose' is not a setting.* mean 'noise'\?"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_sweep(sweep(**parts))


def test_a_sweep_of_baselines_alone_holds() -> None:
    check_sweep(sweep(parameters={}, search={"num_trials": 0}))


@pytest.mark.parametrize(
    ("path", "parameter", "message"),
    [
        (
            "optim.lr",
            {"type": "float", "low": -1, "high": 1},
            r"optim\.lr: .*greater than 0.*got -1",
        ),
        ("optim.warmup_ratio", {"type": "float", "low": 0, "high": 1}, r"warmup_ratio: .*got 1"),
        ("train.seed", {"type": "float", "low": 0, "high": 0.5}, r"train\.seed: .*got 0\.5"),
        ("noise.type", {"type": "categorical", "choices": ["none", "sym"]}, r"type: .*got 'sym'"),
        ("noise.alpha", {"type": "float", "low": 1, "high": 2}, r"no meaning for noise\.type=none"),
        ("optim.lr", {"type": "categorical", "choices": [1e-3, "x"]}, r"optim\.lr: .*got 'x'"),
    ],
)
def test_the_ends_of_every_range_are_tried_on_the_trial(
    path: str, parameter: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_sweep(sweep(parameters={path: parameter}))


def test_an_alpha_for_the_type_none_is_refused_beside_a_varied_type() -> None:
    without_when = {name: value for name, value in ALPHA.items() if name != "when"}
    with pytest.raises(
        UserError, match=r"no meaning for noise\.type=none.*vary it under a `when:`"
    ):
        check_sweep(sweep(parameters={"noise.type": TYPE, "noise.alpha": without_when}))


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (
            {"noise.typ": ["none"]},
            r"names 'noise\.typ', which is not varied.* mean 'noise\.type'\?",
        ),
        ({"noise.type": ["symnose"]}, r"'noise\.type' never takes the value 'symnose'"),
        ({"optim.lr": [0.5]}, r"'optim\.lr' never takes the value 0\.5"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(when: dict[str, Any], message: str) -> None:
    alpha = {**ALPHA, "when": when}
    with pytest.raises(UserError, match=message):
        check_sweep(sweep(parameters={"noise.type": TYPE, "noise.alpha": alpha, "optim.lr": LR}))


def test_a_condition_without_values_is_refused() -> None:
    never = {**LR, "when": {"noise.type": []}}
    parameters = {"noise.type": TYPE, "noise.alpha": ALPHA, "optim.lr": never}
    with pytest.raises(UserError, match=r"optim\.lr.*noise\.type"):
        check_sweep(sweep(parameters=parameters))


def test_a_baseline_is_told_by_its_line() -> None:
    text = "name: small\nbaselines:\n  - {noise.type: none}\n  - {noise.type: neftune}\n"
    document = read_yaml(text, "small.yaml")
    with pytest.raises(UserError, match=r"^small\.yaml:4: noise: noise\.alpha must be given"):
        check_sweep(build(SweepConfig, document), document)


# Trials


def test_resolving_a_point_changes_what_it_names_and_nothing_else() -> None:
    fixed = sweep(trial={"train": {"seed": 7}})
    point = {"noise.type": "symnoise", "noise.alpha": 5.0, "optim.lr": 1e-3}
    config = resolve(fixed, point)
    assert (config.noise.type, config.noise.alpha, config.optim.lr) == ("symnoise", 5.0, 1e-3)
    assert config.train.seed == 7
    assert fixed.trial == {"train": {"seed": 7}}
    changed = {name for name, value in flat(config).items() if value != flat(TrialConfig())[name]}
    assert changed == {*point, "train.seed"}


def test_a_flat_trial_has_every_setting() -> None:
    values = flat(TrialConfig())
    assert list(values) == list(leaf_paths())
    assert values["noise.type"] == "none"
    assert values["optim.betas"] == [0.9, 0.999]
    dumped = TrialConfig().model_dump()
    assert len(values) == sum(len(section) for section in dumped.values())


def test_trials_are_described_by_their_noise() -> None:
    symnoise = TrialConfig.model_validate({"noise": {"type": "symnoise", "alpha": 5.4321}})
    assert describe(symnoise) == "symnoise 5.43"
    assert describe(TrialConfig()) == "none"
