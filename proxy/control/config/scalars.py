"""The types of single values in the schema: how each is parsed, written, named and described.

Every type is an `Annotated` of four things: its name for people, our parser, how the
view writes it, and what JSON Schema says of it.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

from proxy.control.config import addresses, values

FROM_ENVIRONMENT = {"type": "string", "pattern": r"\$\{"}


ON_OFF = {"anyOf": [{"enum": ["on", "off"]}, {"type": "boolean"}, FROM_ENVIRONMENT]}


class Kind(str):
    """What to call a type in the reference and in messages, with its article."""

    __slots__ = ()


def _text(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": rf"^({pattern})$|\$\{{"})


def _or_environment(schema: dict[str, Any]) -> WithJsonSchema:
    """An editor must not complain of `"${NAME}"` where the file may have it."""
    return WithJsonSchema({"anyOf": [schema, FROM_ENVIRONMENT]})


def integer(least: int, most: int, kind: str) -> Any:
    return (
        Kind(kind),
        BeforeValidator(partial(values.integer, least=least, most=most)),
        _or_environment({"type": "integer", "minimum": least, "maximum": most}),
    )


def choice(*options: str) -> BeforeValidator:
    return BeforeValidator(partial(values.choice, options=options))


def or_off(schema: dict[str, Any]) -> None:
    """Tell editors that the word `off` may stand instead of the mapping."""
    schema["anyOf"] = [
        {"const": "off"} if each == {"type": "null"} else each for each in schema["anyOf"]
    ]


def _hide(secret: SecretStr | None) -> str | None:
    return "***" if secret else ("" if secret is not None else None)


def _empty_is_none(value: Any) -> str | None:
    return values.secret(value) or None if value is not None else None


def _share_or_off(hundredths: int | None) -> str:
    return "off" if hundredths is None else values.share_text(hundredths)


_written_duration = PlainSerializer(values.duration_text, when_used="json")
_written_size = PlainSerializer(values.size_text, when_used="json")
_hidden = PlainSerializer(_hide, when_used="json")

Duration = Annotated[
    float,
    Kind("a duration"),
    BeforeValidator(values.duration),
    _written_duration,
    _text(values.DURATION),
]
PositiveDuration = Annotated[
    float,
    Kind("a duration"),
    BeforeValidator(values.positive_duration),
    _written_duration,
    _text(values.DURATION),
]
_size_schema = WithJsonSchema(
    {
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": rf"^{values.SIZE}$|\$\{{"},
        ]
    }
)
Size = Annotated[int, Kind("a size"), BeforeValidator(values.size), _written_size, _size_schema]
PositiveSize = Annotated[
    int, Kind("a size"), BeforeValidator(values.positive_size), _written_size, _size_schema
]
Percent = Annotated[
    int,
    Kind("a percentage"),
    BeforeValidator(values.percent),
    PlainSerializer(values.percent_number, when_used="json"),
    _or_environment({"type": "number", "minimum": 0, "maximum": 100}),
]
Share = Annotated[
    int,
    Kind("a share"),
    BeforeValidator(values.share),
    PlainSerializer(values.share_text, when_used="json"),
    _text(values.SHARE),
]
PositiveShare = Annotated[
    int,
    Kind("a share"),
    BeforeValidator(values.positive_share),
    PlainSerializer(values.share_text, when_used="json"),
    _text(values.SHARE),
]
PartShare = Annotated[
    int,
    Kind("a share"),
    BeforeValidator(values.part_share),
    PlainSerializer(values.share_text, when_used="json"),
    _text(values.SHARE),
]
ShareOrOff = Annotated[
    int | None,
    Kind("a share, or `off`"),
    BeforeValidator(values.share_or_off),
    PlainSerializer(_share_or_off, when_used="json"),
    _text(rf"{values.SHARE}|off"),
]
Switch = Annotated[
    bool,
    Kind("true or false"),
    BeforeValidator(values.boolean),
    _or_environment({"type": "boolean"}),
]
RedirectStatus = Annotated[
    int,
    Kind("a number"),
    BeforeValidator(values.redirect_status),
    _or_environment({"enum": list(values.REDIRECTIONS)}),
]
Text = Annotated[str, Kind("a string"), BeforeValidator(values.text), _text(".+")]
Name = Annotated[str, Kind("a name"), BeforeValidator(values.name), _text(values.NAME)]
Key = Annotated[
    str,
    BeforeValidator(values.name),
    WithJsonSchema({"type": "string", "pattern": f"^{values.NAME}$"}),
]
Token = Annotated[str, Kind("a name"), BeforeValidator(values.token), _text(values.TOKEN)]
Address = Annotated[
    str, Kind("an address"), BeforeValidator(addresses.address), _text(addresses.ADDRESS)
]
Bind = Annotated[str, Kind("an address"), BeforeValidator(addresses.bind), _text(addresses.ADDRESS)]
Host = Annotated[str, Kind("a host"), BeforeValidator(addresses.host), _text(".+")]
RoutePath = Annotated[str, Kind("a path"), BeforeValidator(addresses.route_path), _text("/[^?# ]*")]
HookUrl = Annotated[
    str, Kind("a URL"), BeforeValidator(addresses.url), _text("https?://[^/?# ]+[^# ]*")
]
Network = Annotated[str, Kind("a network"), BeforeValidator(addresses.network), _text(".+")]
RequestPath = Annotated[
    str, Kind("a path"), BeforeValidator(addresses.request_path), _text("/[^# ]*")
]
Authority = Annotated[str, Kind("a host"), BeforeValidator(addresses.authority), _text("[^/ ]+")]
Statuses = Annotated[
    tuple[tuple[int, int], ...],
    Kind("status codes"),
    BeforeValidator(values.statuses),
    PlainSerializer(values.statuses_text, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 200, "maximum": 599},
                {"type": "string", "pattern": rf"^({values.STATUSES})$|\$\{{"},
            ]
        }
    ),
]
HeaderValue = Annotated[
    SecretStr,
    Kind("a string"),
    BeforeValidator(values.header_value),
    _hidden,
    WithJsonSchema({"type": "string"}),
]
Release = Annotated[
    str | None,
    Kind("a string"),
    BeforeValidator(values.release),
    WithJsonSchema({"type": ["string", "null"]}),
]
StickyKind = Annotated[
    str,
    Kind("`none`, `cookie`, `header:NAME` or `client_ip`"),
    BeforeValidator(values.sticky_by),
    _text(values.STICKY),
]
Secret = Annotated[
    SecretStr,
    Kind("a secret"),
    BeforeValidator(values.secret),
    _hidden,
    WithJsonSchema({"type": "string"}),
]
SigningSecret = Annotated[
    SecretStr,
    Kind("a secret"),
    BeforeValidator(values.signing_secret),
    _hidden,
    WithJsonSchema({"type": "string"}),
]
OptionalSecret = Annotated[
    SecretStr | None,
    Kind("a secret"),
    BeforeValidator(_empty_is_none),
    _hidden,
    WithJsonSchema({"type": ["string", "null"]}),
]
Count = Annotated[int, *integer(0, 10_000_000, "a number")]
