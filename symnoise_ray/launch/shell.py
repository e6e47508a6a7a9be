"""What holds for the commands of a launch file: bash reads them, and Ray knows their options.

In: a command or a script. Out: what is wrong with it, in words. Nothing of it is run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

from symnoise_ray.errors import UserError

_VARIABLE = re.compile(r"\$\{[^}]*\}|\$\w+|\$\([^()]*\)")
_ARRAY = re.compile(r"\"?\$\{\w+\[[@*]\]\}\"?")
_START = re.compile(r"\bray start\b(?P<options>(?:\\\n|[^\n;&|])*)")
_HOST = re.compile(r"--dashboard-host[= ]([^\s;\"']+)")
_LOOPBACK = ("127.", "localhost", "::1")


def syntax_problem(script: str) -> tuple[int, str] | None:
    """The line within the script and the reason why `bash -n` does not read it, or None.

    Raises:
        UserError: there is no bash.
    """
    try:
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False, timeout=600
        )
    except FileNotFoundError:
        raise UserError("bash must be installed to check the commands of a launch file") from None
    if done.returncode == 0:
        return None
    told = done.stderr.strip().splitlines() or ["bash gave no reason"]
    found = re.match(r"bash: line (\d+): (.*)", told[0])
    return (int(found[1]), found[2]) if found else (1, told[0])


def starts(command: str) -> Iterator[tuple[int, str]]:
    """The lines above each `ray start` of a command, and its options."""
    for match in _START.finditer(command):
        line_start = command.rfind("\n", 0, match.start()) + 1
        if not command[line_start : match.start()].lstrip().startswith("#"):
            yield command.count("\n", 0, match.start()), match["options"].replace("\\\n", " ")


def option_problem(options: str) -> str | None:
    """What Ray's own command line says against the options of `ray start`, or None."""
    import click
    from ray.scripts.scripts import start

    try:
        # A variable has some value on the machine: any number fits every kind of option. The words
        # of an array are not known here.
        words = shlex.split(_VARIABLE.sub("1", _ARRAY.sub("", options)))
        start.make_context("start", words)
    except click.UsageError as error:
        return error.format_message()
    except ValueError:  # an open quote, which bash complains about
        return None
    return None


def open_dashboard(options: str) -> str | None:
    """The address of a dashboard that more than this machine reaches, or None."""
    found = _HOST.search(options)
    if found is None or found[1].startswith(_LOOPBACK):
        return None
    return found[1]


def asks_for_token(script: str) -> bool:
    """Whether the commands turn on Ray's token authentication."""
    return re.search(r"\bRAY_AUTH_MODE=[\"']?token\b", script) is not None
