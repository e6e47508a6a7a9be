"""The page around sweeps: templates, style and scripts in one file that opens offline.

In: sweeps as `Shown`. Out: HTML. Every text is escaped by the templates. The page's policy allows
the two scripts that stand in it, by their hashes, and nothing from outside: were a text ever not
escaped, no script in it would run.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import platformdirs
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from symnoise_ray.records.files import write_text
from symnoise_ray.report.content import Shown
from symnoise_ray.report.section import Table, cleaned, shortened

ROWS_AT_ONCE = 50
"""Rows of a table that are written as HTML; the page's script shows the others, so many at once."""


def page(sweeps: Sequence[Shown], title: str) -> str:
    """The whole document.

    Args:
        sweeps: At least one.
        title: What the browser shows.
    """
    scripts = [_vega(), _source("report.js")]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            sweeps=sweeps,
            style=Markup(_source("report.css")),
            scripts=[Markup(script) for script in scripts],
            hashes=[_digest(script) for script in scripts],
            rows_at_once=ROWS_AT_ONCE,
        )
    )


@functools.lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("symnoise_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"json": _json, "anchor": _anchor, "rest": _rest}
    return environment


def _shown(value: Any) -> Any:
    """What a template prints; markup that is made here stays markup."""
    return shortened(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _json(value: Any) -> Markup:
    """Values for a block of data: valid JSON, in which no tag can open or close."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z]+", "-", heading.lower()).strip("-")


def _rest(table: Table) -> dict[str, Any]:
    """The rows of a table that are not written as HTML."""
    return {
        "rows": [[shortened(cell) for cell in row] for row in table.rows[ROWS_AT_ONCE:]],
        "arms": [cleaned(arm) for arm in table.arms[ROWS_AT_ONCE:]],
        "trials": [cleaned(trial) for trial in table.trials[ROWS_AT_ONCE:]],
    }


_LOADED = "window.vegaEmbed = vegaEmbed;"
"""What the bundle hands to the page's own script."""


@functools.lru_cache(maxsize=1)
def _vega() -> str:
    """Vega-Lite and what draws it, from the user's cache: putting it together takes a second.

    The cached file begins with the digest of the rest, so that a damaged one is made again.
    """
    place = platformdirs.user_cache_path("symnoise_ray")
    cached = place / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, ValueError):
        digest, script = cached.read_text(encoding="utf-8").split("\n", 1)
        if digest == _digest(script):
            return script
    # A script must not hold its own closing tag. Files end lines with \n when they are read.
    bundle = vl_convert.javascript_bundle(_LOADED).replace("\r\n", "\n")
    script = bundle.replace("</script", "<\\/script")
    with contextlib.suppress(OSError):  # a home that cannot be written costs the second again
        write_text(f"{_digest(script)}\n{script}", cached)
    return script


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
