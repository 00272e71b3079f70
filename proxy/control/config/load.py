"""A configuration file to a valid `Config`, or to everything that is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from proxy.control.config import certificates, explain, files
from proxy.control.config.check import check
from proxy.control.config.document import Document, Place, Unreadable, decode, read
from proxy.control.config.files import Files
from proxy.control.config.problem import ConfigInvalid, Finding, Path, Problem, dotted
from proxy.control.config.schema import Config, ServiceDefaults
from proxy.control.config.values import kind_of

LARGEST_FILE = 4 * 1024 * 1024
_TOP = Place((), 1, 1, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid configuration, and the text it came from."""

    config: Config
    path: str
    sha256: str
    text: str
    files: Files = field(default_factory=Files)
    """What the files held that it names."""

    @property
    def fingerprint(self) -> str:
        return files.joined(self.sha256, self.files.sha256)


def load_file(path: str, environ: Mapping[str, str]) -> Loaded:
    """Read and check a file; raises ConfigInvalid, also when it cannot be read."""
    try:
        raw = _read(path)
        text = decode(raw)
    except Unreadable as error:
        raise ConfigInvalid([_unreadable(path, error)]) from None
    loaded = load_text(text, path, environ, base=str(FilePath(path).parent))
    return replace(loaded, sha256=hashlib.sha256(raw).hexdigest())


def load_text(text: str, name: str, environ: Mapping[str, str], *, base: str = ".") -> Loaded:
    """Check a text; `name` stands in the problems where a file's path would.

    The files that it names are looked for in the folder `base` first.
    """
    try:
        document = read(text, environ)
    except Unreadable as error:
        raise ConfigInvalid([_unreadable(name, error)]) from None
    config, findings = _validate(document)
    if config is None or findings:
        raise ConfigInvalid(dict.fromkeys(_problem(name, document, item) for item in findings))
    names = tuple(files.named(config))
    found, findings = files.read(names, base)
    if not findings:
        facts, findings = certificates.inspect(config, found)
        found = replace(found, certificates=facts)
    if findings:
        raise ConfigInvalid((_problem(name, document, item) for item in findings), names)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Loaded(config=config, path=name, sha256=digest, text=text, files=found)


def _read(path: str) -> bytes:
    try:
        with FilePath(path).open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable(1, 1, f"cannot be read: {reason}") from None
    if len(raw) > LARGEST_FILE:
        raise Unreadable(1, 1, "is larger than 4 MiB", "a configuration")
    return raw


def _validate(document: Document) -> tuple[Config | None, list[Finding]]:
    if not isinstance(document.value, dict):
        return None, [*document.findings, _no_mapping(document.value)]
    _merge_defaults(document)
    config, found = None, list[Finding]()
    try:
        config = Config.model_validate(document.value)
    except ValidationError as error:
        found += explain.findings(error)
    found += (item for item in check(document.value) if not _is_overruled(document, item))
    return config, [*document.findings, *_news(document, found)]


def _is_overruled(document: Document, finding: Finding) -> bool:
    """A service's own choice leaves what stands in `defaults` without effect: that is no fault."""
    chosen = document.places.get(finding.since) if finding.since else None
    idle = document.places.get(finding.path)
    if chosen is None or idle is None:
        return False
    return idle.path[:1] == ("defaults",) and chosen.path[:1] != ("defaults",)


def _no_mapping(value: Any) -> Finding:
    what = "the file is empty" if value is None else f"the file is {kind_of(value)}"
    return Finding(path=(), what=what, expected="a mapping with listeners and services")


def _news(document: Document, found: Iterable[Finding]) -> Iterator[Finding]:
    """Those findings that do not follow from a value that could not be read at all."""
    unread = {finding.path for finding in document.findings if finding.place is None}
    return (finding for finding in found if finding.path not in unread)


def _merge_defaults(document: Document) -> None:
    """Every service gets the defaults it does not override; their places stay in `defaults`."""
    defaults, services = document.value.get("defaults"), document.value.get("services")
    if not isinstance(defaults, dict) or not isinstance(services, dict):
        return
    allowed = {key: defaults[key] for key in ServiceDefaults.model_fields if key in defaults}
    for name, service in services.items():
        if isinstance(service, dict):
            _merge(document, service, allowed, ("services", name), ("defaults",))


def _merge(
    document: Document, into: dict[str, Any], defaults: Mapping[str, Any], path: Path, origin: Path
) -> None:
    for key, value in defaults.items():
        here, there = (*path, key), (*origin, key)
        if key not in into:
            document.places[here] = document.places[there]
            into[key] = _copy(document, value, here, there)
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(document, into[key], value, here, there)


def _copy(document: Document, value: Any, path: Path, origin: Path) -> Any:
    """The value with its places, deep: services must not share what a merge writes to."""
    if isinstance(value, dict):
        copied: dict[str, Any] = {}
        _merge(document, copied, value, path, origin)
        return copied
    if isinstance(value, list):
        for index in range(len(value)):
            document.places[(*path, index)] = document.places[(*origin, index)]
    return value


def _problem(file: str, document: Document, finding: Finding) -> Problem:
    place, shown = _locate(document, finding.path)
    at_key = finding.at_key or place.path != shown
    line, column = finding.place or (
        (place.key_line, place.key_column) if at_key else (place.line, place.column)
    )
    return Problem(
        file=file,
        line=line,
        column=column,
        path=dotted(shown),
        what=finding.what,
        expected=finding.expected,
        suggestion=finding.suggestion,
    )


def _locate(document: Document, path: Path) -> tuple[Place, Path]:
    """The nearest place that the file has for the path, and the path as the file has it."""
    for length in range(len(path), -1, -1):
        place = document.places.get(path[:length])
        if place is not None:
            return place, place.path + path[length:]
    return _TOP, path


def _unreadable(file: str, error: Unreadable) -> Problem:
    return Problem(
        file=file,
        line=error.line,
        column=error.column,
        path="",
        what=error.what,
        expected=error.expected,
    )
