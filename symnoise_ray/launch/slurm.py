"""What holds for a batch script of Slurm that starts Ray on its machines and runs a sweep there.

In: the script's text. Out: complaints. Slurm itself is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from symnoise_ray.launch.documents import Complaint, hint
from symnoise_ray.launch.shell import (
    asks_for_token,
    open_dashboard,
    option_problem,
    starts,
    syntax_problem,
)

_LONG_OPTIONS = (
    *("account", "array", "begin", "chdir", "cluster-constraint", "clusters", "comment"),
    *("constraint", "contiguous", "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu"),
    *("cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error"),
    *("exclude", "exclusive", "export", "export-file", "extra-node-info", "get-user-env", "gid"),
    *("gpu-bind", "gpu-freq", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres"),
    *("gres-flags", "hint", "hold", "ignore-pbs", "input", "job-name", "kill-on-invalid-dep"),
    *("licenses", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu"),
    *("mem-per-gpu", "mincpus", "network", "nice", "no-kill", "no-requeue", "nodefile"),
    *("nodelist", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node"),
    *("ntasks-per-socket", "open-mode", "output", "overcommit", "oversubscribe", "parsable"),
    *("partition", "prefer", "priority", "profile", "propagate", "qos", "quiet", "reboot"),
    *(
        "requeue",
        "reservation",
        "signal",
        "sockets-per-node",
        "spread-job",
        "switches",
        "test-only",
    ),
    *("thread-spec", "threads-per-core", "time", "time-min", "tmp", "tres-bind", "tres-per-task"),
    *("uid", "use-min-nodes", "verbose", "wait", "wait-all-nodes", "wckey", "wrap", "bb", "bbf"),
    *("container", "container-id", "power", "segment", "stepmgr", "tres-per-job"),
)
_DIRECTIVE = re.compile(r"#SBATCH\s+(?:--(?P<name>[\w-]+)(?:[=\s]|$)|-(?P<letter>\w))")
_OUTPUT = re.compile(r"--output[= ][\"']?([^\s\"']+)")
_LOCAL = re.compile(
    r"/(?:var/)?tmp(?:/|$)|/dev/shm(?:/|$)|/local(?:scratch)?(?:/|$)"
    r"|\$\{?(?:TMPDIR|SLURM_TMPDIR|SLURM_JOB_TMPDIR)\b"
)


def check(text: str) -> Iterator[Complaint]:
    """All complaints about a script."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("#!"):
        yield Complaint(
            1, "Slurm needs a first line such as #!/bin/bash, but there is none; add it"
        )
    yield from _directives(lines)
    if problem := syntax_problem(text):
        yield Complaint(problem[0], f"bash must read the script, but says: {problem[1]}")
        return
    for above, options in starts(text):
        yield from _start(1 + above, options, asks_for_token(text))
    yield from _outputs(lines)


def _directives(lines: list[str]) -> Iterator[Complaint]:
    """Options that Slurm does not know, or does not read any more."""
    has_begun = False
    for number, line in enumerate(lines, start=1):
        if not line.startswith("#SBATCH"):
            has_begun = has_begun or bool(line.strip() and not line.startswith("#"))
            continue
        if has_begun:
            yield Complaint(
                number, "Slurm reads #SBATCH above the first command only; move the line up"
            )
        found = _DIRECTIVE.match(line)
        if found is None:
            yield Complaint(
                number, f"#SBATCH must be followed by an option, but got {line[7:40]!r}"
            )
        elif found["name"] and found["name"] not in _LONG_OPTIONS:
            name = found["name"]
            text = f"'--{name}' is not an option of sbatch.{hint(name, _LONG_OPTIONS)}"
            yield Complaint(number, text)


def _start(number: int, options: str, has_token: bool) -> Iterator[Complaint]:
    if problem := option_problem(options):
        yield Complaint(number, f"`ray start` must take its options, but says: {problem}")
    address = open_dashboard(options)
    if address and not has_token:
        yield Complaint(
            number,
            f"a dashboard that others reach must ask for a token, but it listens on {address} "
            "without; write --dashboard-host=127.0.0.1, or export RAY_AUTH_MODE=token",
        )


def _outputs(lines: list[str]) -> Iterator[Complaint]:
    for number, line in enumerate(lines, start=1):
        found = _OUTPUT.search(line)
        if found and not line.lstrip().startswith("#") and _LOCAL.match(found[1]):
            yield Complaint(
                number,
                f"--output must be on storage that all nodes share, but {found[1]} is one node's "
                "own disk; name a folder of the shared file system",
            )
