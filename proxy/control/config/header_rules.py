"""Which headers the rules of a service may not name, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.control.config import addresses, values
from proxy.control.config.problem import Finding, Path, Wrong

_FRAMING = frozenset({"content-length", "transfer-encoding", "trailer", "te", "expect"})
_CONNECTION = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "upgrade",
        "http2-settings",
    }
)
_OURS = frozenset({"via", "x-request-id"})
_OURS_IN_REQUESTS = frozenset({"forwarded", "x-real-ip", "traceparent", "tracestate"})
_OURS_IN_ANSWERS = frozenset({"proxy-status"})
_OUR_FAMILIES = ("x-turnout-",)
_OUR_FAMILIES_IN_REQUESTS = ("x-forwarded-", "x-client-cert-")


def check(path: Path, headers: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with `headers.request` and `headers.response`."""
    for side in ("request", "response"):
        rules = headers.get(side)
        if isinstance(rules, dict):
            yield from _side((*path, side), rules, of_request=side == "request")


def _side(path: Path, rules: Mapping[str, Any], *, of_request: bool) -> Iterator[Finding]:
    set_, removed = rules.get("set"), rules.get("remove")
    if isinstance(set_, dict):
        yield from _set((*path, "set"), set_, of_request=of_request)
    for index, name in enumerate(removed if isinstance(removed, list) else ()):
        if isinstance(name, str):
            here = (*path, "remove", index)
            yield from _named(here, name, of_request=of_request)
            if of_request and name.lower() == "host":
                yield Finding(
                    path=here,
                    what='is "Host", without which there is no request',
                    expected="to set another",
                )


def _set(path: Path, lines: Mapping[str, Any], *, of_request: bool) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, value in lines.items():
        here, lowered = (*path, name), str(name).lower()
        try:
            values.token(name)
        except Wrong as wrong:
            yield Finding(path=here, what=wrong.what, expected=wrong.expected, at_key=True)
            continue
        yield from _named(here, lowered, of_request=of_request, at_key=True)
        if (first := seen.setdefault(lowered, name)) != name:
            yield Finding(path=here, what=f"is the same header as {first}", at_key=True)
        if of_request and lowered == "host" and not _is_host(value):
            yield Finding(
                path=here, what="is no host", expected="a host such as shop.internal:8443"
            )


def _named(path: Path, name: str, *, of_request: bool, at_key: bool = False) -> Iterator[Finding]:
    why = _why_not(name.lower().replace("_", "-"), of_request=of_request)
    if why:
        yield Finding(path=path, what=why, expected="a header of the application's", at_key=at_key)


def _why_not(name: str, *, of_request: bool) -> str:
    """A sentence's end, empty for a header that rules may name."""
    ours = _OURS | (_OURS_IN_REQUESTS if of_request else _OURS_IN_ANSWERS)
    families = _OUR_FAMILIES + (_OUR_FAMILIES_IN_REQUESTS if of_request else ())
    if name in _FRAMING:
        return "says how the message is framed, which is not a rule's business"
    if name in _CONNECTION:
        return "is about one connection, and never passed on"
    if name in ours or name.startswith(families):
        return "is what Turnout itself says"
    return ""


def _is_host(value: Any) -> bool:
    try:
        addresses.authority(value)
    except Wrong:
        return False
    return True
