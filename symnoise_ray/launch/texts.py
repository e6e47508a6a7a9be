"""What holds for the text of any launch file: no secret in clear, one Ray, a Python that fits.

In: text. Out: complaints. A secret's value is never part of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from packaging.specifiers import SpecifierSet

from symnoise_ray.launch.documents import Complaint

_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:hf_|ghp_|github_pat_|sk-|xox[bap]-)[A-Za-z0-9_-]{16,}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|(?i:(?:password|passwd|secret|api_?key|access_?key|auth_?token|token)\b[\"']?\s*[:=]\s*)"
    r"[\"']?(?!/)[A-Za-z0-9+/_-]{16,}"
    r"|://[^/\s:@]+:[^/\s:@$]+@"
)
_RAY_VERSION = re.compile(
    r"(?:\bray(?:\[[\w,]+\])?\s?==\s?|(?<![\w.])ray:|-ray:|\brayVersion:\s*[\"']?"
    r"|ray\.__version__ == [\"'])(\d+\.\d+(?:\.\d+)?\w*)"
)
_PYTHON_VERSION = re.compile(r"-py(3)(\d{1,2})\b|\bpython(3)\.(\d{1,2})\b")
_OPEN_RULE = re.compile(r"(?<![\d.])0\.0\.0\.0/0|(?<![\w:])::/0")


def check_text(text: str) -> Iterator[Complaint]:
    """Complain about secrets, rules open to the world, and versions."""
    for number, line in enumerate(text.splitlines(), start=1):
        if _SECRET.search(line):
            yield Complaint(
                number,
                "a launch file must hold no secret, but this line looks like one (not shown); take "
                "it from a file or a variable of the machines, and have it replaced",
            )
        code = line.split("#", 1)[0]
        if _OPEN_RULE.search(code):
            yield Complaint(
                number,
                "no rule may admit the whole internet, but 0.0.0.0/0 or ::/0 came; name the range "
                "of your own network",
            )
        yield from _versions(number, code)


def _versions(number: int, code: str) -> Iterator[Complaint]:
    installed = metadata.version("ray")
    for version in _RAY_VERSION.findall(code):
        if version != installed:
            yield Complaint(
                number,
                f"Ray must be {installed} on every machine, as here, but got {version}; write "
                f"{installed}",
            )
    supported = _supported_python()
    for match in _PYTHON_VERSION.findall(code):
        python = ".".join(part for part in match if part)
        if not supported.contains(python):
            yield Complaint(
                number, f"Python must be {supported} for this project, but got {python}; raise it"
            )


def _supported_python() -> SpecifierSet:
    return SpecifierSet(metadata.metadata("symnoise-ray")["Requires-Python"] or "")
