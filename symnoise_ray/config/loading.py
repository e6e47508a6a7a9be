"""Text to configuration: YAML 1.2 files, shipped spaces, `key=value` overrides, one-line errors.

In: a file or the name of a shipped space, and overrides. Out: `SweepConfig` or `TrialConfig`.
YAML 1.2, so `1e-4` is a number and `no` is a word; every message names file, line and key.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from symnoise_ray.config import JudgeConfig, SweepConfig, TrialConfig
from symnoise_ray.config.faults import KeyPath, explain, nearest, setting_path
from symnoise_ray.config.redaction import redacted
from symnoise_ray.config.renamed import take_up_old_keys
from symnoise_ray.errors import UserError

Config = TypeVar("Config", bound=BaseModel)
Names = tuple[str, ...]
Anchor = Callable[[dict[str, Any], Path], None]
"""Makes the paths of files in a document's values absolute, in place; they begin at the folder."""
_TOO_DEEP = "{}: must be a few levels deep, but is nested too deeply to be read"
OVERRIDE = "override "
"""How the place of an override begins."""


class Document(NamedTuple):
    """Plain values, and for messages the place of every key."""

    values: dict[str, Any]
    places: dict[KeyPath, str]
    source: str

    def where(self, path: KeyPath) -> str:
        """The place of the deepest known part of a path: `file:line`, or an override."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.source

    def fault(self, path: KeyPath, message: str) -> UserError:
        """An error at a path; where an override below it is named in the message, that is blamed.

        Settings are also checked together: then the path is that of their section, which stands in
        the file though the override is what is wrong.
        """
        below = [
            place
            for other, place in self.places.items()
            if place.startswith(OVERRIDE)
            and other[: len(path)] == path
            and re.search(rf"\b{re.escape('.'.join(map(str, other[-2:])))}\b", message)
        ]
        return UserError(f"{below[-1] if below else self.where(path)}: {message}")


def shipped_spaces() -> dict[str, Path]:
    """Name, such as `quickstart` or `paper/alpaca-opt` -> file, of the spaces of the package."""
    package = Path(__file__).parent.parent
    for folder in (package / "search_spaces", package.parent / "search_spaces"):
        if files := sorted(folder.rglob("*.yaml")):
            return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    raise UserError(f"the shipped search spaces must lie in or beside {package}; reinstall")


def read_yaml(text: str, source: str) -> Document:
    """Parse YAML 1.2 into plain values and line numbers.

    Raises:
        UserError: the text is not YAML, has a duplicate key, or is not a mapping.
    """
    try:
        tree = _parser().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0].strip()
        told = problem.removeprefix("but ")
        raise UserError(f"{source}{line}: must be valid YAML, but {told}") from None
    except RecursionError:
        raise UserError(_TOO_DEEP.format(source)) from None
    if not isinstance(tree, Mapping):
        raise UserError(f"{source}: must hold a mapping of settings, but got {type(tree).__name__}")
    lines: dict[KeyPath, int] = {}
    try:
        values = _plain(tree, (), lines)
    except RecursionError:
        raise UserError(_TOO_DEEP.format(source)) from None
    return Document(values, {path: f"{source}:{line}" for path, line in lines.items()}, source)


class _Constructor(RoundTripConstructor):
    """Says where a value stands that is not of the type that its form or its tag claims."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError) as error:
            kind = str(node.tag).rpartition(":")[2]
            problem = f"the value here is no {kind}; put it into quotes if it is text"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark) from error


def _parser() -> YAML:
    parser = YAML()
    parser.Constructor = _Constructor
    return parser


def _plain(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """Strip the parser's own types and collect the line of every key and item."""
    if isinstance(node, Mapping):
        for key in node:
            if key in (node.lc.data or {}):  # type: ignore[attr-defined]
                # A key that `<<` merges in has no place of its own.
                lines[(*path, key)] = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
        return {str(key): _plain(value, (*path, key), lines) for key, value in node.items()}
    if isinstance(node, list):
        for index in range(len(node)):
            lines[(*path, index)] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def apply_overrides(
    document: Document,
    overrides: Sequence[str],
    place: Callable[[Names, str], Names] = lambda path, _: path,
    anchor: Anchor | None = None,
) -> None:
    """Put `a.b=value` words into a document, the later ones over the earlier ones.

    Args:
        document: Changed in place.
        overrides: As they stand on the command line.
        place: From an override's own path and its name for messages to the path in the document.
        anchor: What makes the paths of files absolute; they begin at the working directory.

    Raises:
        UserError: a word is no override, its value is not YAML, or its path leads into a value.
            Values that may be secrets are not shown, here or when the document is built.
    """
    for text in overrides:
        path, value = parse_override(text)
        name = f"{OVERRIDE}{redacted(text)}"
        path = place(path, name)
        if anchor is not None:
            value = _anchored(path, value, anchor)
        put(document.values, path, value)
        for old in [each for each in document.places if each[: len(path)] == path]:
            del document.places[old]
        document.places[path] = name


def _anchored(path: Names, value: Any, anchor: Anchor) -> Any:
    """The value of one override with absolute paths; the rest of the document is left alone."""
    alone: dict[str, Any] = {}
    put(alone, path, value)
    anchor(alone, Path.cwd())
    held: Any = alone
    for part in path:
        held = held[part]
    return held


def parse_override(text: str) -> tuple[Names, Any]:
    """Split `a.b=value`; the value is read as YAML 1.2."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"an override must be key=value, but got {redacted(text)!r}")
    try:
        read = read_yaml(f"value: {value}", text)
    except UserError:
        if redacted(text) == text:
            raise
        raise UserError(f"override {redacted(text)}: the value must be valid YAML") from None
    return tuple(key.strip().split(".")), read.values["value"]


def put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a dotted path in nested dictionaries, making sections on the way."""
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"{'.'.join(path)}: {part} is a value, not a section")
        values = inner
    values[path[-1]] = value


def build(model: type[Config], document: Document, prefix: KeyPath = ()) -> Config:
    """Validate a document's values; the first mistake becomes an error of one line.

    Raises:
        UserError: with the place, the key, what must hold, what was given, and the nearest name.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        first = error.errors()[0]
        told = explain(first, model, prefix)
        raise document.fault((*prefix, *setting_path(first)), told) from None


def find_space(space: str) -> Path:
    """The file of a search space given by path or by the name of a shipped one."""
    path = Path(space).expanduser()
    if path.is_file():
        return path
    known = shipped_spaces()
    if space in known:
        return known[space]
    raise UserError(
        f"the search space must be a file or one of the shipped names ({', '.join(known)}), "
        f"but got {redacted(space)!r}{_looked_at(path)}"
    )


def _looked_at(path: Path) -> str:
    """Where a file was looked for; nothing where the name may hold a secret."""
    return "" if redacted(str(path)) != str(path) else f", and there is no {path.absolute()}"


def load_sweep(
    space: str, overrides: Sequence[str] = (), anchor: Anchor | None = None
) -> tuple[SweepConfig, Document]:
    """Read a search space; overrides name sweep settings or, more often, trial settings.

    The trial's own settings are checked where they are resolved, in `space/parameters.py`. Keys of
    earlier versions are taken up, with one line on the standard error.

    Args:
        space: A file, or the name of a shipped space.
        overrides: As they stand on the command line.
        anchor: What makes the paths of files absolute: those of the space begin at its folder.
    """
    path = find_space(space)
    document = read_yaml(_read_text(path), str(path))
    if anchor is not None:
        anchor(document.values, path.absolute().parent)
    apply_overrides(
        document,
        overrides,
        lambda names, shown: _sweep_path(names, shown, document.values),
        anchor,
    )
    for advice in take_up_old_keys(document.values, document.places):
        print(f"{path}: {advice}", file=sys.stderr)
    return build(SweepConfig, document), document


def _sweep_path(path: Names, name: str, values: dict[str, Any]) -> Names:
    """Where an override belongs: into the trial, or under a varied parameter with dots."""
    section, *rest = path
    if section in TrialConfig.model_fields:
        return ("trial", *path)
    if section not in SweepConfig.model_fields:
        known = [*SweepConfig.model_fields, *TrialConfig.model_fields]
        raise UserError(f"{name}: '{section}' is not a section.{nearest(section, known)}")
    if section == "parameters" and rest:
        parent = ".".join(rest[:-1])
        if parent in (values.get("parameters") or {}):
            return ("parameters", parent, rest[-1])
        return ("parameters", ".".join(rest))
    return path


def load_trial(
    path: Path | None, overrides: Sequence[str] = (), anchor: Anchor | None = None
) -> TrialConfig:
    """One trial: its file (YAML, or the `config.json` of an earlier trial), or overrides alone.

    `anchor` makes the paths of files absolute, as in `load_sweep`.
    """
    document = Document({}, {}, "overrides")
    if path is not None:
        document = read_yaml(_read_text(path), str(path))
        if anchor is not None:
            anchor(document.values, path.absolute().parent)
    apply_overrides(document, overrides, anchor=anchor)
    return build(TrialConfig, document)


def load_judge(overrides: Sequence[str], anchor: Anchor | None = None) -> JudgeConfig:
    """The judge that overrides describe, each of them named `judge.*`."""

    def place(path: Names, name: str) -> Names:
        if path[0] != "judge":
            raise UserError(f"{name}: only judge.* has a meaning for this verb")
        return path

    document = Document({}, {}, "key=value")
    apply_overrides(document, overrides, place, anchor)
    return build(TrialConfig, document).judge


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{redacted(str(path))}: the configuration file must exist{_looked_at(path)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: must be readable UTF-8 text, but {error}") from None


def schema() -> dict[str, Any]:
    """JSON Schema of a search space, its `trial` being partial: every setting has a default."""
    tree = SweepConfig.model_json_schema()
    trial = TrialConfig.model_json_schema(ref_template="#/$defs/{model}")
    tree["$defs"] = {**tree.get("$defs", {}), **trial.pop("$defs")}
    tree["properties"]["trial"] = trial
    return tree


def is_space(path: Path) -> bool:
    """A search space has a name, a trial has none."""
    return "name" in read_yaml(path.read_text("utf-8", "replace"), str(path)).values
