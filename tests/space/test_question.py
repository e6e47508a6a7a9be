"""What a sweep is asked is checked before anything starts: one line, exit status 2, no file."""

from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.errors import UserError
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.trials import SweepPlans

SPACE = """\
name: asked
{question}
trial: {{data: {{train: demo}}, {trial}}}
parameters:
  noise.type: {{type: categorical, choices: [none, symnoise]}}
  noise.alpha: {{type: float, low: 1, high: 9, when: {{noise.type: [symnoise]}}}}
  optim.lr: {{type: float, low: 1e-3, high: 1e-2, log: true}}
  optim.schedule: {{type: categorical, choices: [linear, cosine]{when}}}
baselines: [{{noise.type: none}}]
search: {{sampler: qmc, num_trials: 3}}
confirm: {{{confirm}}}
"""


def space(
    question: str = "", confirm: str = "arms: 1, looks: [2, 3]", when: str = "", trial: str = ""
) -> str:
    asked = f"question: {{{question}}}" if question else ""
    return SPACE.format(question=asked, confirm=confirm, when=when, trial=trial)


BROKEN: list[tuple[dict[str, str], str]] = [
    (
        {"question": "treatment: optim.lr, reference: 0.001"},
        "question.treatment=optim.lr must be categorical, but is float; list its values under "
        "`choices`",
    ),
    (
        {"question": "treatment: lora.rank, reference: 8"},
        "question.treatment=lora.rank must be a categorical parameter of the space, so that its "
        "values are tuned alike, but `parameters` has only noise.type, noise.alpha, optim.lr, "
        "optim.schedule",
    ),
    (
        {"question": "treatment: optim.schedul, reference: linear"},
        "'optim.schedul' is not a trial setting. Did you mean 'optim.schedule'?",
    ),
    (
        {"question": "treatment: optim.schedule, reference: constant"},
        "question.reference=constant must be a value of optim.schedule, which takes linear, cosine",
    ),
    (
        {"question": "reference: neftune"},
        "question.reference=neftune must be a value of noise.type, which takes none, symnoise",
    ),
    (
        {
            "question": "treatment: optim.schedule, reference: linear",
            "when": ", when: {noise.type: [symnoise]}",
        },
        "question.treatment=optim.schedule must be varied in all trials, since every arm meets the "
        "same values of the others, but has a condition under `when`",
    ),
    ({"question": "effect: 0"}, "question.effect: input should be greater than 0, but got 0"),
    (
        {"question": "effect: 0.5"},
        "question.effect: input should be less than 0.5, but got 0.5",
    ),
    (
        {"question": "population: others"},
        "question.population: must be these_groups or other_groups, but got 'others'",
    ),
    (
        {"question": "treatement: noise.type"},
        "'question.treatement' is not a setting. Did you mean 'treatment'?",
    ),
    *(
        (
            {"confirm": f"arms: 1, looks: {looks}"},
            "confirm.looks must be growing numbers of seeds from 1, such as [3, 5, 8], but got "
            f"{looks}",
        )
        for looks in ("[3, 3]", "[5, 3]", "[0, 3]", "[]")
    ),
    (
        {"confirm": "arms: 1, looks: [1, 3]"},
        "confirm.looks must begin with 2 seeds at least, or be [1] alone, since one seed cannot "
        "show how much seeds differ, but got [1, 3]",
    ),
    (
        {"question": "treatment: optim.schedule, reference: linear"},
        "needs a baseline with optim.schedule: linear, but got 1 baselines without one",
    ),
]


@pytest.mark.parametrize(("parts", "message"), BROKEN, ids=lambda part: str(part)[:60])
def test_a_question_that_cannot_be_asked_is_refused_in_one_line(
    parts: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(space(**parts))
    assert main(["tune", "space.yaml", "--output", "run"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("error: space.yaml:")
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.parametrize("num_trials", [2, 4])
def test_a_search_that_cannot_be_balanced_creates_nothing(
    num_trials: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(space())
    override = f"search.num_trials={num_trials}"
    assert main(["tune", "space.yaml", override, "--output", "run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: search: every arm must be tuned with the same number of trials")
    assert line.endswith(f"; take search.num_trials={num_trials - 1} or {num_trials + 1}")
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


def check(tmp_path: Path, text: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    check_sweep(*load_sweep(str(path)))


def test_the_treatment_must_take_two_values(tmp_path: Path) -> None:
    lines = space().replace("[none, symnoise]", "[none]").splitlines()
    text = "\n".join(line for line in lines if "noise.alpha" not in line)
    with pytest.raises(
        UserError, match=r"noise\.type must take two values at least, one to be compared with none"
    ):
        check(tmp_path, text)


def test_values_whose_names_are_alike_are_refused(tmp_path: Path) -> None:
    text = space("treatment: data.train, reference: a/b").replace(
        "optim.schedule: {type: categorical, choices: [linear, cosine]}",
        "data.train: {type: categorical, choices: [a/b, a b]}",
    )
    text = text.replace("trial: {data: {train: demo}, }", "trial: {data: {eval_prompts: p.json}}")
    text = text.replace("[{noise.type: none}]", "[{noise.type: none, data.train: a/b}]")
    with pytest.raises(UserError, match=r"the values of data\.train must differ in letters, digi"):
        check(tmp_path, text)


def test_a_reference_that_only_a_baseline_has_is_an_arm(tmp_path: Path) -> None:
    text = space().replace("[none, symnoise]", "[symnoise, neftune]")
    check(tmp_path, text.replace("[symnoise]}}", "[symnoise, neftune]}}").replace(": 3}", ": 5}"))


def test_a_point_that_the_trial_refuses_is_told_before_anything_starts(tmp_path: Path) -> None:
    text = space().replace("[none, symnoise]", "[symnoise]")
    unconditional = text.replace(", when: {noise.type: [symnoise]}", "")
    with pytest.raises(UserError, match=r"no meaning for noise\.type=none.*under a `when:`"):
        check(tmp_path, unconditional)


@pytest.mark.parametrize("effect", ["0.001", "0.499"])
def test_effects_up_to_one_half_are_taken(effect: str, tmp_path: Path) -> None:
    check(tmp_path, space(f"effect: {effect}, population: other_groups"))


def test_without_a_confirmation_there_need_be_no_question(tmp_path: Path) -> None:
    check(tmp_path, space(confirm="arms: 0").replace("num_trials: 3", "num_trials: 2"))


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "none, which are symnoise, but got neftune"),
        ("reference: symnoise", "symnoise, which are none, but got symnoise"),
        (
            "treatment: optim.schedule, reference: linear",
            "linear, which are schedule-cosine, but got symnoise",
        ),
    ],
)
def test_a_contrast_names_two_arms_that_are_compared(
    question: str, said: str, tmp_path: Path
) -> None:
    text = space(question, "arms: 1, looks: [2, 3], contrasts: [[symnoise, neftune]]")
    told = (
        rf"space\.yaml:\d+: confirm\.contrasts must name arms that are compared with {said}; take"
    )
    with pytest.raises(UserError, match=told):
        check(tmp_path, text)


# Seeds


@pytest.mark.parametrize(("looks", "most"), [("[2, 3]", 2**32 - 1003), ("[3, 5, 8]", 2**32 - 1008)])
def test_the_seeds_of_the_last_look_are_checked_before_anything_starts(
    looks: str, most: int, tmp_path: Path
) -> None:
    def text(seed: int) -> str:
        return space(confirm=f"arms: 1, looks: {looks}", trial=f"train: {{seed: {seed}}}")

    check(tmp_path, text(most))
    told = rf"space\.yaml:3: train\.seed must be {most} at most, .* but is {most + 1}"
    with pytest.raises(UserError, match=told):
        check(tmp_path, text(most + 1))


def test_the_seeds_of_a_search_without_confirmation_count_its_blocks(tmp_path: Path) -> None:
    def text(seed: int) -> str:
        searched = space(confirm="arms: 0", trial=f"train: {{seed: {seed}}}")
        return searched.replace("num_trials: 3", "num_trials: 4")

    check(tmp_path, text(2**32 - 3))
    with pytest.raises(UserError, match=r"space\.yaml:3: train\.seed must be 4294967293 at most"):
        check(tmp_path, text(2**32 - 2))


def test_a_seed_that_is_an_arm_leaves_room_for_its_fresh_seeds(tmp_path: Path) -> None:
    text = space("treatment: train.seed, reference: 1").replace(
        "optim.schedule: {type: categorical, choices: [linear, cosine]}",
        "train.seed: {type: categorical, choices: [1, 4294967290]}",
    )
    text = text.replace("[{noise.type: none}]", "[{noise.type: none, train.seed: 1}]")
    with pytest.raises(UserError, match=r"space\.yaml:8: train\.seed must be 4294966293 at most"):
        check(tmp_path, text)


def test_a_seed_that_is_written_as_text_is_counted_on_from(tmp_path: Path) -> None:
    text = space(trial='train: {seed: "5"}')
    (tmp_path / "space.yaml").write_text(text)
    sweep, document = load_sweep(str(tmp_path / "space.yaml"))
    check_sweep(sweep, document)
    plan = SweepPlans(sweep, tmp_path).confirm({"noise.type": "none"}, 0)
    assert plan.config.train.seed == 1005
