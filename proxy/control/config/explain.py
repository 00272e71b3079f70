"""What pydantic found, in our words: unknown keys with the nearest known one, expected kinds."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxy.control.config.problem import Finding, Path, Wrong, either, nearest
from proxy.control.config.scalars import Kind
from proxy.control.config.schema import Config
from proxy.control.config.sections.section import Section
from proxy.control.config.values import kind_of

_STRUCTURE = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}


def findings(error: ValidationError) -> Iterator[Finding]:
    """One finding for each of the error's details; the paths begin at the top of the file."""
    return map(_finding, error.errors(include_url=False))


def _finding(detail: ErrorDetails) -> Finding:
    path, kind = detail["loc"], detail["type"]
    if path and path[-1] == "[key]":
        return _of_wrong(path[:-1], detail, at_key=True)
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return Finding(
            path=path,
            what="is missing",
            expected=kind_of_field(fields_at(path[:-1])[str(path[-1])]),
        )
    if kind in _STRUCTURE:
        return Finding(path=path, what=f"is {kind_of(detail['input'])}", expected=_STRUCTURE[kind])
    return _of_wrong(path, detail)


def _of_wrong(path: Path, detail: ErrorDetails, *, at_key: bool = False) -> Finding:
    wrong = detail.get("ctx", {}).get("error")
    if not isinstance(wrong, Wrong):
        return Finding(path=path, what=detail["msg"], at_key=at_key)
    return Finding(
        path=path,
        what=wrong.what,
        expected=wrong.expected,
        suggestion=wrong.suggestion,
        at_key=at_key,
    )


def _unknown_key(path: Path) -> Finding:
    known = list(fields_at(path[:-1]))
    meant = nearest(str(path[-1]), known)
    return Finding(
        path=path,
        what="unknown key",
        expected="" if meant else either(known),
        suggestion=meant,
        at_key=True,
    )


def fields_at(path: Path) -> dict[str, FieldInfo]:
    """The keys that the section at this path knows."""
    kind: Any = Config
    for part in path:
        kind = _inside(_bare(kind), part)
    kind = _bare(kind)
    return fields_of(kind) if _is_section(kind) else {}


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The section's fields by the key they have in the file, its own before inherited ones."""
    inherited = getattr(section.__base__, "model_fields", {})
    fields = sorted(section.model_fields.items(), key=lambda item: item[0] in inherited)
    return {field.alias or name: field for name, field in fields}


def section_of(field: FieldInfo) -> tuple[str, type[Section]] | None:
    """The section behind a key, and how its path goes on: ``, `[]` or `.NAME`."""
    suffix, kind = "", _bare(field.annotation)
    if get_origin(kind) in {tuple, dict}:
        suffix = "[]" if get_origin(kind) is tuple else ".NAME"
        kind = _bare(_inside(kind, 0))
    return (suffix, kind) if _is_section(kind) else None


def kind_of_field(field: FieldInfo) -> str:
    """What a field takes, in words with an article."""
    named = [item for item in field.metadata if isinstance(item, Kind)]
    return str(named[-1]) if named else _kind_of_type(field.annotation)


def _kind_of_type(annotation: Any) -> str:
    named = [item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Kind)]
    if named:
        return str(named[-1])
    if annotation is not _bare(annotation):
        return _kind_of_type(_without_none(annotation))
    if get_origin(annotation) is Literal:
        return either([f"`{option}`" for option in get_args(annotation)])
    return "a list" if get_origin(annotation) is tuple else "a mapping"


def _inside(kind: Any, part: str | int) -> Any:
    if _is_section(kind):
        field = fields_of(kind).get(str(part))
        return field.annotation if field else None
    return {dict: get_args(kind)[-1:], tuple: get_args(kind)[:1]}.get(get_origin(kind), (None,))[0]


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and `| None`."""
    inner = _without_none(annotation)
    return _bare(inner) if inner is not annotation else annotation


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    if get_origin(annotation) in {Union, UnionType}:
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
