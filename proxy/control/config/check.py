"""What no single key can know: references, duplicates, sums and combinations that make no sense.

It looks at the values as they were written, defaults merged, and not at the models:
one mistyped key must not hide a wrong reference beside it. What has the wrong shape
has been reported by the schema and is passed over here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from proxy.control.config import addresses, header_rules, values
from proxy.control.config.problem import Finding, Path, Wrong, dotted, either, nearest, quoted
from proxy.control.config.schema import MOST_POOLS
from proxy.control.config.sections.listener import AdminConfig
from proxy.control.config.sections.pool import PoolTls, RouteConfig
from proxy.control.config.sections.traffic import (
    EjectionConfig,
    HealthConfig,
    PreviewConfig,
    StickyConfig,
)
from proxy.model import WHOLE

T = TypeVar("T")

SHORTEST_INTERVAL_S = 0.05
"""Between two checks of an endpoint."""


def check(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong between the keys of the file."""
    yield from _at_least_one(("listeners",), tree.get("listeners"))
    yield from _binds(tree)
    yield from _redirects(tree)
    for index, listener in enumerate(_list(tree, "listeners")):
        if isinstance(listener, dict):
            yield from _proxy_protocol(("listeners", index), listener)
            yield from _listener_tls(("listeners", index, "tls"), _mapping(listener, "tls"))
    yield from _admin(_mapping(tree, "admin"))
    yield from _routes(_mapping(tree, "services"))
    for name, service in _mapping(tree, "services").items():
        if isinstance(service, dict):
            yield from _service(("services", name), service)


def _service(path: Path, service: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _at_least_one((*path, "routes"), service.get("routes"))
    yield from _prefixes((*path, "routes"), _list(service, "routes"))
    yield from _pools(path, service)
    yield from _active(path, service)
    yield from _weights(path, service)
    yield from _sticky((*path, "sticky"), _mapping(service, "sticky"))
    yield from _cookies(path, service)
    yield from _health((*path, "health"), _mapping(service, "health"))
    yield from _ejection((*path, "ejection"), _mapping(service, "ejection"))
    yield from header_rules.check((*path, "headers"), _mapping(service, "headers"))
    yield from _steps((*path, "rollout", "steps"), _mapping(service, "rollout").get("steps"))


def _steps(path: Path, steps: Any) -> Iterator[Finding]:
    """Weights of a rollout rise, from above nothing to everything."""
    yield from _at_least_one(path, steps)
    if not isinstance(steps, list) or not steps:
        return
    weights = [
        _parsed(values.percent, step.get("weight")) if isinstance(step, dict) else None
        for step in steps
    ]
    before = 0
    for index, weight in enumerate(weights):
        if weight is None:
            return
        if weight <= before:
            yield Finding(
                path=(*path, index, "weight"),
                what=f"is {values.percent_number(weight)}, not above the step before",
                expected="weights that rise",
            )
        before = max(before, weight)
    if before < WHOLE:
        yield Finding(
            path=(*path, len(steps) - 1, "weight"),
            what=f"is {values.percent_number(before)}, and nothing comes after it",
            expected="100 in the last step",
        )


def _at_least_one(path: Path, value: Any) -> Iterator[Finding]:
    if value == []:
        yield Finding(path=path, what="is empty", expected="at least one")


def _binds(tree: Mapping[str, Any]) -> Iterator[Finding]:
    seen: dict[str, Path] = {}
    admin = _mapping(tree, "admin").get("bind", _default(AdminConfig, "bind"))
    written = [
        (("listeners", index, "bind"), listener.get("bind"))
        for index, listener in enumerate(_list(tree, "listeners"))
        if isinstance(listener, dict)
    ]
    for path, value in [*written, (("admin", "bind"), admin)]:
        bind = _parsed(addresses.bind, value)
        if bind is None:
            continue
        first = seen.setdefault(bind, path)
        if first != path:
            yield Finding(path=path, what=f"{bind} is already the bind of {dotted(first[:-1])}")


def _redirects(tree: Mapping[str, Any]) -> Iterator[Finding]:
    for index, listener in enumerate(_list(tree, "listeners")):
        if _mapping(listener, "redirect") and _mapping(listener, "tls"):
            yield Finding(
                path=("listeners", index, "redirect"),
                what="would send clients in circles: with tls they speak https here already",
                expected="redirect or tls",
                at_key=True,
            )


def _prefixes(path: Path, routes: list[Any]) -> Iterator[Finding]:
    for index, route in enumerate(routes):
        if not isinstance(route, dict) or not _parsed(values.boolean, route.get("strip_prefix")):
            continue
        prefix = route.get("path", _default(RouteConfig, "path"))
        if _parsed(addresses.route_path, prefix) == "/":
            yield Finding(
                path=(*path, index, "strip_prefix"),
                what="has no effect, since there is nothing in the path / to leave out",
                expected="a longer path",
            )


def _proxy_protocol(path: Path, listener: Mapping[str, Any]) -> Iterator[Finding]:
    is_wanted = _parsed(values.boolean, listener.get("proxy_protocol"))
    if is_wanted and not listener.get("trusted_proxies"):
        yield Finding(
            path=(*path, "proxy_protocol"),
            what="is on, and there is nobody whose PROXY header is believed",
            expected="trusted_proxies with the networks of the balancers",
        )


def _listener_tls(path: Path, tls: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _at_least_one((*path, "certificates"), tls.get("certificates"))
    if "client_auth" in tls and not tls.get("client_ca"):
        yield Finding(
            path=(*path, "client_auth"),
            what="asks clients for certificates, and there is no client_ca to know them by",
            expected="client_ca too",
        )


def _pool_tls(path: Path, tls: Mapping[str, Any]) -> Iterator[Finding]:
    for one, other in (("cert", "key"), ("key", "cert")):
        if tls.get(one) and not tls.get(other):
            yield Finding(path=(*path, one), what=f"is of no use without {other}", expected="both")


def _admin(admin: Mapping[str, Any]) -> Iterator[Finding]:
    bind = _parsed(addresses.bind, admin.get("bind"))
    if bind is not None and not addresses.is_local(bind) and not admin.get("token"):
        yield Finding(
            path=("admin", "token"),
            what=f"is missing, and others than this machine can reach {bind}",
            expected="a token, or a loopback or unix bind",
        )
    if not admin.get("read_token"):
        return
    if not admin.get("token"):
        yield Finding(
            path=("admin", "read_token"),
            what="protects nothing without a token for changes",
            expected="admin.token too",
        )
    elif admin["read_token"] == admin["token"]:
        yield Finding(
            path=("admin", "read_token"),
            what="is the same as admin.token, so it could change everything too",
            expected="another secret",
        )


def _routes(services: Mapping[str, Any]) -> Iterator[Finding]:
    seen: dict[tuple[str | None, str], Path] = {}
    for name, service in services.items():
        for index, route in enumerate(_list(service, "routes")):
            key = _route(route)
            path = ("services", name, "routes", index)
            if key is not None and (first := seen.setdefault(key, path)) != path:
                yield Finding(
                    path=path,
                    what=f"{key[0] or 'any host'} with {key[1]} is already {dotted(first)}",
                )


def _route(route: Any) -> tuple[str | None, str] | None:
    if not isinstance(route, dict):
        return None
    host = route.get("host")
    path = _parsed(addresses.route_path, route.get("path", _default(RouteConfig, "path")))
    parsed = _parsed(addresses.host, host)
    if path is None or (host is not None and parsed is None):
        return None
    return parsed, path


def _pools(path: Path, service: Mapping[str, Any]) -> Iterator[Finding]:
    pools = service.get("pools")
    if isinstance(pools, dict) and not 1 <= len(pools) <= MOST_POOLS:
        yield Finding(
            path=(*path, "pools"),
            what=f"has {len(pools)} pools" if pools else "is empty",
            expected="one or two pools",
        )
    for name, pool in _mapping(service, "pools").items():
        here, endpoints = (*path, "pools", name), _list(pool, "endpoints")
        yield from _endpoints((*here, "endpoints"), endpoints)
        yield from _nameless((*here, "endpoints"), endpoints, pool)
        yield from _pool_tls((*here, "tls"), _mapping(pool, "tls"))


def _endpoints(path: Path, endpoints: list[Any]) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, endpoint in enumerate(endpoints):
        written = endpoint.get("address") if isinstance(endpoint, dict) else endpoint
        address = _parsed(addresses.address, written)
        if address is not None and (first := seen.setdefault(address, index)) != index:
            yield Finding(
                path=(*path, index), what=f"{address} is already endpoints[{first}] of this pool"
            )


def _nameless(path: Path, endpoints: list[Any], pool: Any) -> Iterator[Finding]:
    """A path says nothing of whose certificate is to be expected."""
    tls = pool.get("tls") if isinstance(pool, dict) else None
    if not isinstance(tls, dict) or tls.get("server_name"):
        return
    if _parsed(values.boolean, tls.get("verify", _default(PoolTls, "verify"))) is False:
        return
    for index, endpoint in enumerate(endpoints):
        written = endpoint.get("address") if isinstance(endpoint, dict) else endpoint
        address = _parsed(addresses.address, written)
        if address is not None and address.startswith("unix:"):
            yield Finding(
                path=(*path, index),
                what=f"{address} says nothing of the name in its certificate",
                expected="tls.server_name in this pool",
            )


def _active(path: Path, service: Mapping[str, Any]) -> Iterator[Finding]:
    active, pools = service.get("active"), _mapping(service, "pools")
    if isinstance(active, str) and active and pools and active not in pools:
        yield _unknown_pool((*path, "active"), active, pools)


def _weights(path: Path, service: Mapping[str, Any]) -> Iterator[Finding]:
    weights, pools = service.get("weights"), _mapping(service, "pools")
    if not isinstance(weights, dict):
        return
    here = (*path, "weights")
    parsed = {name: _parsed(values.percent, value) for name, value in weights.items()}
    for name, weight in parsed.items():
        if pools and name not in pools:
            yield _unknown_pool((*here, name), name, pools, at_key=True)
        elif weight and _is_empty(pools.get(name)):
            yield Finding(
                path=(*here, name),
                what=f"gives traffic to the pool {name}, which has no endpoints",
                expected=f"0, or endpoints in {name}",
            )
    known = [weight for weight in parsed.values() if weight is not None]
    if len(known) == len(parsed) and sum(known) != WHOLE:
        total = values.percent_number(sum(known))
        yield Finding(path=here, what=f"add up to {total}", expected="100")


def _sticky(path: Path, sticky: Mapping[str, Any]) -> Iterator[Finding]:
    by = _parsed(values.sticky_by, sticky.get("by", _default(StickyConfig, "kind")))
    if by is None:
        return
    if by != "cookie" and sticky.get("on_zero") == "finish":
        yield Finding(
            path=(*path, "on_zero"),
            what=f'"finish" needs a cookie, since by: {by} does not remember a client\'s pool',
            expected="by: cookie, or on_zero: move",
            since=(*path, "by"),
        )
    if by == "none" and _parsed(values.boolean, sticky.get("endpoint")):
        yield Finding(
            path=(*path, "endpoint"),
            what="has no effect while clients are not sticky",
            expected="by: cookie, header:NAME or client_ip",
            since=(*path, "by"),
        )


def _cookies(path: Path, service: Mapping[str, Any]) -> Iterator[Finding]:
    sticky, preview = _mapping(service, "sticky"), _mapping(service, "preview")
    if sticky.get("by") != "cookie" or not preview.get("secret"):
        return
    name = sticky.get("cookie", _default(StickyConfig, "cookie"))
    if name == preview.get("cookie", _default(PreviewConfig, "cookie")):
        yield Finding(
            path=(*path, "preview", "cookie")
            if "cookie" in preview
            else (*path, "sticky", "cookie"),
            what=f"{quoted(name)} is the cookie of both sticky and preview",
            expected="two names",
        )


def _health(path: Path, health: Mapping[str, Any]) -> Iterator[Finding]:
    kind = health.get("type", _default(HealthConfig, "kind"))
    if kind == "tcp":
        for key in ("path", "statuses", "host", "headers"):
            if key in health:
                yield Finding(
                    path=(*path, key),
                    what="has no effect, since type: tcp only opens a connection",
                    expected="type: http or https",
                    at_key=True,
                    since=(*path, "type"),
                )
    if (
        interval := _parsed(values.duration, health.get("interval"))
    ) and interval < SHORTEST_INTERVAL_S:
        yield Finding(
            path=(*path, "interval"),
            what=f"is {values.duration_text(interval)}, which would be an attack",
            expected=f"at least {values.duration_text(SHORTEST_INTERVAL_S)}",
        )
    if kind != "https" and _parsed(values.boolean, health.get("verify")) is False:
        yield Finding(
            path=(*path, "verify"),
            what=f"has no effect without a certificate, which type: {kind} has not",
            expected="type: https",
            at_key=True,
            since=(*path, "type"),
        )
    yield from _check_headers((*path, "headers"), _mapping(health, "headers"))


def _check_headers(path: Path, headers: Mapping[str, Any]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name in headers:
        here, lowered = (*path, name), str(name).lower()
        try:
            values.token(name)
        except Wrong as wrong:
            yield Finding(path=here, what=wrong.what, expected=wrong.expected, at_key=True)
        if lowered in _NOT_FOR_CHECKS:
            meant = "the key host beside headers" if lowered == "host" else ""
            yield Finding(
                path=here,
                what="is not for a check to send",
                expected=meant or "a header of the request, not of the connection",
                at_key=True,
            )
        elif (first := seen.setdefault(lowered, name)) != name:
            yield Finding(path=here, what=f"is the same header as {first}", at_key=True)


_NOT_FOR_CHECKS = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "keep-alive",
        "proxy-connection",
    }
)
"""Headers that say how the request is framed or carried: ours to set."""


def _ejection(path: Path, ejection: Mapping[str, Any]) -> Iterator[Finding]:
    base, most = (
        _parsed(values.duration, ejection.get(key, _default(EjectionConfig, key)))
        for key in ("base_time", "max_time")
    )
    if base is not None and most is not None and base > most:
        yield Finding(path=(*path, "base_time"), what="is longer than ejection.max_time")


def _unknown_pool(
    path: Path, name: str, pools: Mapping[str, Any], *, at_key: bool = False
) -> Finding:
    return Finding(
        path=path,
        what=f"unknown pool {quoted(name)}",
        expected=either(list(pools)),
        suggestion=nearest(name, pools),
        at_key=at_key,
    )


def _is_empty(pool: Any) -> bool:
    return isinstance(pool, dict) and pool.get("endpoints", []) == []


def _mapping(tree: Any, key: str) -> dict[str, Any]:
    value = tree.get(key) if isinstance(tree, dict) else None
    return value if isinstance(value, dict) else {}


def _list(tree: Any, key: str) -> list[Any]:
    value = tree.get(key) if isinstance(tree, dict) else None
    return value if isinstance(value, list) else []


def _parsed(parse: Callable[[Any], T], value: Any) -> T | None:
    """The value, or None where it is absent or the schema has already complained of it."""
    try:
        return None if value is None else parse(value)
    except Wrong:
        return None


def _default(section: Any, field: str) -> Any:
    return section.model_fields[field].default
