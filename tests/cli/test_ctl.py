"""`ctl` and `completion` on the command line: one line and status 2, scripts that shells take."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from symnoise_ray.cli.ctl import _table, _values
from symnoise_ray.cli.main import main
from symnoise_ray.report.words import printable

COMMAND = f"{sys.executable} -m symnoise_ray"


@pytest.mark.parametrize("order", [["list"], ["stop", "000-none"], ["budget", "trials=3"]])
def test_an_order_to_no_sweep_is_one_line_and_status_2(
    order: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["ctl", str(tmp_path), *order]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:1", "with the submission id of a job"),
        ("http://127.0.0.1:1/raysubmit_x", "must be a job of a Ray cluster that answers"),
    ],
)
def test_an_address_where_no_cluster_answers_is_one_line_and_status_2(
    address: str, why: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["ctl", address, "list"]) == 2
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1


def test_words_are_read_as_overrides_are():
    point = _values("add", ["noise.type=symnoise", "optim.lr=1e-3"])
    assert point == {"point": {"noise.type": "symnoise", "optim.lr": 0.001}}
    limits = _values("budget", ["trials=20", "budget.wall_time=none"])
    assert limits == {"limits": {"trials": 20, "wall_time": None}}


def test_no_name_or_reason_can_steer_a_terminal():
    row = dict.fromkeys(("trial", "status", "slot", "step", "wins"), "\x1b]0;owned\x07\x9b2J")
    lines = _table([{**row, "clean_loss": None, "settings": "a\rb\x7f"}])
    shown = "\n".join(map(printable, lines))
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert "]0;owned" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_all_verbs_and_orders(shell: str, capsys: pytest.CaptureFixture[str]):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("tune", "ctl", "completion", "pause", "resume"):
        assert word in script
    if shutil.which(shell):
        check = [shell, "--no-execute"] if shell == "fish" else [shell, "-n"]
        subprocess.run(check, input=script, text=True, check=True)


def test_bash_completes_a_verb_and_an_order():
    for words, at, found in (("va", 1, "validate"), ("ctl runs pa", 3, "pause")):
        ask = (
            f'eval "$({COMMAND} completion bash)"; COMP_WORDS=(symnoise-ray {words}); '
            f'COMP_CWORD={at}; _shtab_symnoise_ray; echo "${{COMPREPLY[@]}}"'
        )
        run = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert run.stdout.split() == [found]
