"""YAML as Ray and Kubernetes read it, with the line of every key.

In: text. Out: one `Document` for each YAML document in it. It is read with PyYAML, because `ray up`
reads it so: YAML 1.1, in which `no` is false, unlike this project's own settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from symnoise_ray.config.faults import KeyPath, nearest
from symnoise_ray.config.redaction import redacted
from symnoise_ray.errors import UserError

_LONGEST_HINT = 200
_LONGEST_VALUE = 60


class Complaint(NamedTuple):
    """A mistake: its line, and what must hold, what came, and what to do."""

    line: int
    text: str


class Document(NamedTuple):
    """Plain values, and the line of every key and item."""

    values: dict[str, Any]
    lines: dict[KeyPath, int]
    repeated: list[Complaint]
    """About keys that are given twice."""

    def at(self, path: KeyPath, text: str) -> Complaint:
        """A complaint at the deepest known part of a path."""
        ends = range(len(path), -1, -1)
        return Complaint(
            next(self.lines[path[:end]] for end in ends if path[:end] in self.lines), text
        )

    def get(self, *path: str | int) -> Any:
        """The value at a path, or None."""
        value: Any = self.values
        for part in path:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def mapping(self, *path: str | int) -> Mapping[str, Any]:
        """The mapping at a path; empty where there is none, which the schema complains about."""
        value = self.get(*path)
        return value if isinstance(value, Mapping) else {}

    def items(self, *path: str | int) -> list[Any]:
        """The list at a path; empty where there is none, which the schema complains about."""
        value = self.get(*path)
        return value if isinstance(value, list) else []


def read_documents(text: str, source: str) -> list[Document]:
    """Parse a file; an empty document is left out.

    Raises:
        UserError: the text is not YAML, or a document is not a mapping.
    """
    loader = _Loader(text)
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            places = _Places(loader)
            places.note(node, ())
            values: Any = loader.construct_document(node)
            if not isinstance(values, dict | None):
                line, kind = places.lines[()], type(values).__name__
                raise UserError(f"{source}:{line}: must hold a mapping, but got a {kind}")
            if values is not None:
                documents.append(Document(values, places.lines, places.repeated))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise UserError(f"{source}{where}: must be valid YAML, but {problem}") from None
    except RecursionError:
        text = "must be a few levels deep, but is nested too deeply to be read"
        raise UserError(f"{source}: {text}") from None
    finally:
        loader.dispose()
    return documents


class _Loader(yaml.SafeLoader):
    """Says where a value stands that is not of the type that its form or its tag claims."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError) as error:
            kind = node.tag.rpartition(":")[2]
            raise _problem(
                node, f"the value here is no {kind}; put it into quotes if it is text"
            ) from error


def _problem(node: yaml.Node, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)


class _Places:
    """The line of every key and item of a document, and the keys that are given twice."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.loader = loader
        self.lines: dict[KeyPath, int] = {}
        self.repeated: list[Complaint] = []
        self._visited: set[int] = set()
        self._around: list[yaml.Node] = []

    def note(self, node: yaml.Node, path: KeyPath) -> None:
        """Walk a node; a key that `<<` merges in has the line of its origin.

        Raises:
            MarkedYAMLError: a key is a list or a mapping, or an alias leads to what it is part of.
        """
        if any(node is other for other in self._around):
            raise _problem(node, "an alias must not stand within what it names")
        self._around.append(node)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            if id(node) not in self._visited:  # an alias leads here again
                self._visited.add(id(node))
                self._note_repeated(node)
                self.loader.flatten_mapping(node)
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _problem(key, "a key must be a word, and not a list or a mapping")
                self.lines[(*path, key.value)] = key.start_mark.line + 1
                self.note(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.note(value, (*path, index))
        self._around.pop()

    def _note_repeated(self, node: yaml.MappingNode) -> None:
        seen = set()
        keys = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key in keys:
            if key.value in seen:
                text = f"'{key.value}' must be given once, but comes again; delete one of the two"
                self.repeated.append(Complaint(key.start_mark.line + 1, text))
            seen.add(key.value)


def key_of(path: Sequence[str | int]) -> str:
    """A path as messages show it."""
    return ".".join(map(str, path)) or "the file"


def shown(path: Sequence[str | int], value: Any) -> str:
    """A value as messages show it: short, and not at all where its name may be a secret's."""
    word = f"{key_of(path)}={value}"
    if redacted(word) != word:
        return "a value that is not shown"
    if isinstance(value, str | int | float | bool) and len(str(value)) <= _LONGEST_VALUE:
        return repr(value)
    return f"a {type(value).__name__}"


def hint(name: object, known: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or the list of known names where it is short."""
    text = nearest(str(name), known)
    return text if len(text) <= _LONGEST_HINT else ""


def unknown_key(document: Document, path: KeyPath, where: str, known: Sequence[str]) -> Complaint:
    """The complaint about a key that nothing reads."""
    return document.at(path, f"'{key_of(path)}' is not a key of {where}.{hint(path[-1], known)}")


def scalars(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """All values that are neither mapping nor list, with their paths."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from scalars(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from scalars(child, (*path, index))
    else:
        yield path, value
