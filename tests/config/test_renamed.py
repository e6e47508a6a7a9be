"""Keys of earlier versions are taken up under their new names, and one line says what to write."""

from pathlib import Path

import pytest

from symnoise_ray.config.loading import load_sweep
from symnoise_ray.errors import UserError

SPACE = """\
name: old
parameters: {optim.lr: {type: float, low: 1e-3, high: 1e-2}}
baselines: [{noise.type: none}]
search: {num_trials: 1}
"""
ARMS = "confirm.top_k is now confirm.arms: write `arms: 2`"
LOOKS = (
    "confirm.num_seeds is now confirm.looks, the seeds at each look: write `looks: [4]`, or leave "
    "it out for [3, 5, 8]"
)


@pytest.mark.parametrize(
    ("confirm", "overrides", "arms", "looks", "advice"),
    [
        ("{top_k: 2, num_seeds: 4}", (), 2, (4,), [ARMS, LOOKS]),
        ("{top_k: 2}", (), 2, (3, 5, 8), [ARMS]),
        ("{arms: 2, num_seeds: 4}", (), 2, (4,), [LOOKS]),
        ("{}", ("confirm.top_k=2", "confirm.num_seeds=4"), 2, (4,), [ARMS, LOOKS]),
        ("{arms: 2, looks: [4]}", (), 2, (4,), []),
    ],
)
def test_old_keys_mean_what_they_meant_and_are_told(
    confirm: str,
    overrides: tuple[str, ...],
    arms: int,
    looks: tuple[int, ...],
    advice: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(f"{SPACE}confirm: {confirm}\n")
    sweep, _ = load_sweep(str(path), overrides)
    assert (sweep.confirm.arms, sweep.confirm.looks) == (arms, looks)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [f"{path}: {line}" for line in advice]
    assert shown.out == ""


@pytest.mark.parametrize(
    ("confirm", "key"), [("{top_k: 2, arms: 1}", "top_k"), ("{num_seeds: 2, looks: [3]}", "num_se")]
)
def test_an_old_key_beside_its_new_name_is_refused(confirm: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(f"{SPACE}confirm: {confirm}\n")
    with pytest.raises(UserError, match=key):
        load_sweep(str(path))


def test_a_wrong_value_of_an_old_key_is_told_under_its_new_name(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(f"{SPACE}confirm: {{top_k: -1}}\n")
    with pytest.raises(UserError, match=r"confirm\.arms: .* got -1"):
        load_sweep(str(path))
