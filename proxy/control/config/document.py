"""YAML text to plain values, each with its line and column; the only import of the YAML parser."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yamlcore import CCoreLoader

from proxy.control.config.environment import expand
from proxy.control.config.problem import Finding, Path, Wrong, quoted
from proxy.control.config.values import Expanded

MOST_NODES = 100_000
"""Values in a file, those behind an alias counted each time: an alias must not be a bomb."""
DEEPEST = 32
"""The parser recurses in C; far deeper nesting would end the process, not the parsing."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + kind for kind in ("str", "null", "bool", "int", "float")}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, and where its key does; lines and columns count from 1."""

    path: Path
    line: int
    column: int
    key_line: int
    key_column: int


@dataclass(slots=True)
class Document:
    """The values, where they stand, and what is already known to be wrong."""

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class Unreadable(Exception):  # noqa: N818 - it says what the text is
    """Text that is no YAML document at all; the first error is the only one."""

    def __init__(self, line: int, column: int, what: str, expected: str = "") -> None:
        super().__init__(what)
        self.line = line
        self.column = column
        self.what = what
        self.expected = expected


def read(text: str, environ: Mapping[str, str]) -> Document:
    """Parse, expand the environment, construct; raises Unreadable."""
    root = _compose(text)
    document = Document()
    if root is not None:
        _Construction(document, environ).run(root)
    return document


def _compose(text: str) -> yaml.Node | None:
    try:
        text.encode()
        _check_shape(text)
        return _root(text)
    except UnicodeEncodeError as error:
        line, column = position(text, error.start)
        raise Unreadable(line, column, "is not UTF-8") from None
    except yaml.reader.ReaderError as error:
        raise _unreadable_character(text, error) from None
    except yaml.MarkedYAMLError as error:
        raise _unreadable_syntax(text, error) from None


def _check_shape(text: str) -> None:
    depth = 0
    for event in _events(text):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise _at(event.start_mark, f"is nested more than {DEEPEST} levels deep")


def _events(text: str) -> Iterator[yaml.Event]:
    loader = CCoreLoader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _root(text: str) -> yaml.Node | None:
    loader = CCoreLoader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Construction:
    """One walk over the nodes: values, places, and findings on the way."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._scalars = CCoreLoader("")
        self._count = 0
        self._above: set[int] = set()

    def run(self, root: yaml.Node) -> None:
        self._document.value = self._construct(root, (), root)

    def _construct(self, node: yaml.Node, path: Path, key: yaml.Node) -> Any:
        self._count += 1
        if self._count > MOST_NODES:
            raise _at(node.start_mark, f"has more than {MOST_NODES} values, aliases followed")
        if len(path) > DEEPEST:
            raise _at(node.start_mark, f"is nested more than {DEEPEST} levels deep")
        if id(node) in self._above:
            raise _at(node.start_mark, "contains itself by an alias")
        mark, key_mark = node.start_mark, key.start_mark
        self._document.places[path] = Place(
            path, mark.line + 1, mark.column + 1, key_mark.line + 1, key_mark.column + 1
        )
        if not isinstance(node, yaml.CollectionNode):
            return self._scalar(node, path)
        self._above.add(id(node))
        try:
            return self._collection(node, path)
        finally:
            self._above.discard(id(node))

    def _collection(self, node: yaml.CollectionNode, path: Path) -> Any:
        if node.tag not in {_TAG + "map", _TAG + "seq"}:
            self._find(path, f"has the tag {quoted(node.tag)}", "no tags")
        if isinstance(node, yaml.SequenceNode):
            return [
                self._construct(item, (*path, index), item) for index, item in enumerate(node.value)
            ]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.CollectionNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in mapping:
                self._duplicate(path, key, key_node, first_lines[key])
                continue
            first_lines[key] = line
            mapping[key] = self._construct(value_node, (*path, key), key_node)
        return mapping

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
            return str(node.value)
        written = node.value if isinstance(node, yaml.ScalarNode) else None
        shown = quoted(written) if isinstance(written, str) and written else "this"
        self._find_at(
            node.start_mark, path, f"the key {shown} is no string", "a word, if need be in quotes"
        )
        return None

    def _duplicate(self, path: Path, key: str, node: yaml.Node, first_line: int) -> None:
        self._find_at(
            node.start_mark, (*path, key), f"duplicate key, first given on line {first_line}"
        )

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag not in _SCALARS:
            self._find(path, f"has the tag {quoted(node.tag)}", "no tags")
            return Expanded("")
        if "${" in node.value:
            return self._expanded(node, path)
        try:
            return self._scalars.construct_object(node)
        except (ValueError, KeyError, IndexError, yaml.YAMLError):
            self._find(path, f"{quoted(node.value)} cannot be read as its type")
            return Expanded("")

    def _expanded(self, node: yaml.Node, path: Path) -> Expanded:
        try:
            return Expanded(expand(node.value, self._environ))
        except Wrong as wrong:
            self._find(path, wrong.what, wrong.expected)
            return Expanded("")

    def _find(self, path: Path, what: str, expected: str = "") -> None:
        self._document.findings.append(Finding(path=path, what=what, expected=expected))

    def _find_at(self, mark: Any, path: Path, what: str, expected: str = "") -> None:
        """A finding that stands where no value of this path does."""
        place = (mark.line + 1, mark.column + 1)
        self._document.findings.append(
            Finding(path=path, what=what, expected=expected, place=place)
        )


def position(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of the character at `index`."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def decode(raw: bytes) -> str:
    """UTF-8, perhaps with a byte order mark; raises Unreadable."""
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        line, column = position(before, len(before))
        raise Unreadable(
            line, column, f"is not UTF-8: the byte 0x{raw[error.start]:02x}", "a text file in UTF-8"
        ) from None


def _at(mark: Any, what: str) -> Unreadable:
    return Unreadable(mark.line + 1, mark.column + 1, what)


def _unreadable_character(text: str, error: yaml.reader.ReaderError) -> Unreadable:
    code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "?")
    line, column = position(text, max(text.find(chr(code)), 0))
    return Unreadable(line, column, f"has the control character U+{code:04X}", "plain text")


def _unreadable_syntax(text: str, error: yaml.MarkedYAMLError) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    column = mark.column if mark else 0
    lines = text.split("\n")
    rest = lines[line][column:] if line < len(lines) else ""
    before = lines[line][:column] if line < len(lines) else ""
    what, expected = _explain(error, before, rest)
    return Unreadable(line + 1, column + 1, what, expected)


def _explain(error: yaml.MarkedYAMLError, before: str, rest: str) -> tuple[str, str]:
    if before.endswith("$") and rest.startswith("{"):
        return "an environment variable stands here without quotes", '"${NAME}" inside {} and []'
    if rest.startswith("\t"):
        return "a tab stands where YAML allows only spaces", "spaces"
    if rest[:1] in {"@", "`", "%"} and isinstance(error, yaml.scanner.ScannerError):
        return f"a value cannot begin with {rest[0]}", "it in quotes"
    if "alias" in f"{error.context} {error.problem}":
        return "a value that begins with * refers to an anchor, and this one to none", "quotes"
    if error.context == "expected a single document in the stream":
        return "a second document begins here", "one document"
    context = f" {error.context}" if error.context else ""
    return f"is no YAML:{context}{',' if context else ''} {error.problem}", ""
