"""The page of all settings, written from the JSON Schema: docs/settings.md.

In: the schema of a search space. Out: Markdown, one table a section, so that the page cannot differ
from the code. `python -m symnoise_ray.config.reference` writes the page to standard output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from symnoise_ray.config.loading import schema

COMMAND = "python -m symnoise_ray.config.reference > docs/settings.md"
"""Writes the page, from the root of the repository."""
Node = Mapping[str, Any]
"""A part of the schema."""

_HEAD = f"""# Settings

Every setting with its type, its default and its meaning. What to set first is in
[your-own.md](your-own.md). This command writes the page from the code:

    {COMMAND}

A search space is a YAML file with the sections of the [second part](#the-sweep); its `trial:`
block holds those of the [first](#the-trial). On a command line all are `key=value`, such as
`optim.lr=1e-3`. `null` means that there is no value."""
_TRIAL = """## The trial

Everything that can change the result of one trial. In a space these keys stand under `trial:`;
under `parameters:` and `baselines:` they are written with a dot, as here."""
_SWEEP = """## The sweep

What is held fixed, what is varied, what runs first, and how the sweep ends."""


def page(tree: Node) -> str:
    """The whole page, of the schema that `loading.schema` gives."""
    trial = tree["properties"]["trial"]["properties"]
    sweep = tree["properties"]
    parts = [_HEAD, _TRIAL, *_sections(trial, tree), _SWEEP, _table("", sweep, tree)]
    parts += _sections({name: node for name, node in sweep.items() if "$ref" in node}, tree)
    varied = sweep["parameters"]["additionalProperties"]
    parts += _sections({"parameters.KEY": varied}, tree)
    return "\n\n".join(parts) + "\n"


def _sections(sections: Mapping[str, Node], tree: Node) -> Iterator[str]:
    """Heading, meaning and table of every section."""
    for name, node in sections.items():
        section = _resolve(node, tree)
        yield f"### {name}"
        yield section["description"]
        yield _table(f"{name}.", section["properties"], tree)


def _table(prefix: str, settings: Mapping[str, Node], tree: Node) -> str:
    rows = ["| key | type and choices | default | meaning |", "|---|---|---|---|"]
    for name, node in settings.items():
        meaning = " ".join(node.get("description", _resolve(node, tree)["description"]).split())
        kind = f"[section](#{name})" if "$ref" in node else _kind(node)
        cells = (f"`{prefix}{name}`", kind, _default(node), meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _resolve(node: Node, tree: Node) -> Node:
    """The node itself, or the definition that it points to."""
    reference = node.get("$ref")
    definition: Node = tree["$defs"][reference.rpartition("/")[2]] if reference else node
    return definition


def _kind(node: Node) -> str:
    """What a value may be, in words."""
    if "anyOf" in node:
        return _alternatives([_kind(each) for each in node["anyOf"]])
    if "$ref" in node:
        return f"{node['$ref'].rpartition('/')[2].lower()} (mapping)"
    if "enum" in node:
        return _alternatives([f"`{choice}`" for choice in node["enum"]])
    kind = str(node.get("type", "any value"))
    if kind == "array":
        return _list(node)
    if kind == "object":
        return "[section](#the-trial)" if "properties" in node else _mapping(node)
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(kind, kind) + _range(node)


def _alternatives(kinds: list[str]) -> str:
    first, last = ", ".join(kinds[:-1]), kinds[-1]
    return f"{first} or {last}" if first else last


def _list(node: Node) -> str:
    items = node.get("prefixItems") or [node["items"]]
    kind = _kind(items[0]) if items[0] else "any values"
    return f"list of {len(items)} ({kind})" if "prefixItems" in node else f"list ({kind})"


def _mapping(node: Node) -> str:
    """A mapping with its keys, where only some may stand there."""
    inner = node.get("additionalProperties")
    if not isinstance(inner, Mapping):
        return "mapping"
    values = "[section](#parameterskey)" if "$ref" in inner else _kind(inner)
    keys = node.get("propertyNames")
    return f"mapping of {_kind(keys)} to {values}" if keys else f"mapping to {values}"


def _range(node: Node) -> str:
    """` >= 1 and < 5`, or nothing."""
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    ends = [f"{sign} {node[key]}" for key, sign in signs.items() if key in node]
    return f" {' and '.join(ends)}" if ends else ""


def _default(node: Node) -> str:
    """The default as it would be written; a section has one for each of its settings."""
    if "$ref" in node or "properties" in node:
        return ""
    return f"`{json.dumps(node['default'])}`" if "default" in node else "required"


if __name__ == "__main__":
    print(page(schema()), end="")
