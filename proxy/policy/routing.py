"""Which service answers: the most specific host first, then the longest path prefix.

Hosts, from most to least specific: an exact name, `*.suffix` from the longest
suffix to the shortest, any host. `*.example.com` stands for one or more labels
(`a.example.com`, `a.b.example.com`), as in most proxies, and never for
`example.com` itself. When the most specific host has no route for the path, the
next one is asked.

Paths are compared raw, byte for byte, without decoding `%2F` or resolving `..`:
the endpoint receives the same raw bytes and reads them by its own rules, and a
proxy that reads them by other rules is how two parties come to disagree about
what was asked for. A route chooses a service; it is no access control.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.model import Route

NOWHERE = -1

_MEMO_LIMIT = 1024
"""Hosts come from strangers: a full memo is emptied, which costs a few microseconds each."""

_LONGEST_HOST = 262
"""253 bytes of a DNS name, its trailing dot, a colon, five digits of a port, and brackets.
Nothing longer names a host, so it is neither walked label by label nor remembered."""

_Candidates = tuple[tuple[bytes, int, int], ...]
"""(path prefix without its trailing slash, its length, service index), in order of preference."""


class Router:
    """Routes with the caller's service indexes; of two equal routes the first one wins."""

    __slots__ = ("_any", "_exact", "_memo", "_suffix", "_whole")

    def __init__(self, routes: Iterable[tuple[Route, int]]) -> None:
        self._exact: dict[bytes, _Candidates] = {}
        self._suffix: dict[bytes, _Candidates] = {}
        """By suffix with its leading dot."""
        self._any: _Candidates = ()
        self._memo: dict[bytes, _Candidates] = {}
        self._whole: dict[bytes, int] = {}
        """Memo of the raw hosts whose first candidate takes every path: no path is looked at."""
        for route, service in routes:
            self._add(route, service)

    def find(self, host: bytes, target: bytes) -> int:
        """Service index for a raw Host value and an origin-form target (or `*`), or NOWHERE."""
        service = self._whole.get(host)
        if service is not None:
            return service
        candidates = self._memo.get(host)
        if candidates is None:
            candidates = self._remember(host)
        for prefix, length, service in candidates:
            # The slice is empty at the end of the target, and b"" is in every bytes.
            if not length or (target.startswith(prefix) and target[length : length + 1] in b"/?"):
                return service
        return NOWHERE

    def _add(self, route: Route, service: int) -> None:
        prefix = route.path.rstrip("/").encode()
        entry = (prefix, len(prefix), service)
        if route.host is None:
            self._any = _by_length((*self._any, entry))
            return
        name = route.host.lower().encode().strip(b"[]").removesuffix(b".")
        table = self._exact
        if name.startswith(b"*."):
            table, name = self._suffix, name[1:]
        table[name] = _by_length((*table.get(name, ()), entry))

    def _remember(self, host: bytes) -> _Candidates:
        candidates = self._candidates(host)
        if len(host) <= _LONGEST_HOST:
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
                self._whole.clear()
            self._memo[host] = candidates
            if candidates and not candidates[0][1]:
                self._whole[host] = candidates[0][2]
        return candidates

    def _candidates(self, host: bytes) -> _Candidates:
        if len(host) > _LONGEST_HOST:
            return self._any
        name = _bare(host)
        found = self._exact.get(name, ())
        if self._suffix:
            # From 1: a wildcard stands for at least one character of a label.
            dot = name.find(b".", 1)
            while dot > 0:
                found += self._suffix.get(name[dot:], ())
                dot = name.find(b".", dot + 1)
        return found + self._any


def _bare(host: bytes) -> bytes:
    """A Host value in lower case, without port, brackets and trailing dot."""
    if host.startswith(b"["):
        return host[1:].partition(b"]")[0].lower()
    return host.partition(b":")[0].removesuffix(b".").lower()


def _by_length(entries: _Candidates) -> _Candidates:
    """Longest prefix first; the sort is stable, so the first of equals stays the first."""
    return tuple(sorted(entries, key=lambda entry: -entry[1]))
