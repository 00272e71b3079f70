"""Where things are: addresses of endpoints and listeners, networks, hosts and paths of routes."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from proxy.control.config.problem import Wrong, quoted
from proxy.control.config.values import kind_of, text

ADDRESS = r".+:[0-9]{1,5}|unix:/.+"

_EXPECTED = "host:port, [v6]:port or unix:/path"
_LONGEST_UNIX_PATH = 107  # sun_path of unix(7) without its closing zero
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def address(value: Any) -> str:
    """An endpoint's address in its one spelling: `host:port`, `[v6]:port` or `unix:/path`."""
    return _address(value)


def bind(value: Any) -> str:
    """An address to listen on, in its one spelling."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65_536:
        raise Wrong(f"is {kind_of(value)}, only a port", _EXPECTED, f"0.0.0.0:{value}")
    if isinstance(value, str) and (port := re.fullmatch(r"\*?:([0-9]{1,5})", value)):
        raise Wrong(f"is {quoted(value)}, without a host", _EXPECTED, f"0.0.0.0:{port[1]}")
    return _address(value)


def is_local(bound: str) -> bool:
    """Whether only this machine can reach the (valid) address."""
    if bound.startswith("unix:"):
        return True
    name = bound.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def host(value: Any) -> str:
    """A route's host, lower case: `shop.example.com`, `*.example.com`, an IP address."""
    expected = "a host such as shop.example.com or *.example.com"
    pattern = text(value, expected).lower()
    if pattern == "*":
        raise Wrong('is "*"', expected, "to leave host out, which means any host")
    base = pattern.removeprefix("*.")
    if _is_ip(base.strip("[]")) and base == pattern:
        return pattern
    if _is_host_name(base):
        return pattern
    raise Wrong(f"is {quoted(str(value))}", expected, _nearest_host(pattern))


def route_path(value: Any) -> str:
    """A path prefix; it ends at a segment's border, so a closing slash is not kept."""
    expected = "a path such as / or /api"
    path = text(value, expected)
    bare = re.split(r"[?#]", path)[0]
    if not path.startswith("/"):
        raise Wrong(f"is {quoted(path)}", expected + ", beginning with a slash", f"/{bare}")
    if bare != path:
        raise Wrong(f"has a query or fragment: {quoted(path)}", expected, bare)
    if not re.fullmatch(r"[!-~]+", path):
        raise Wrong(f"has a character that must be percent-encoded: {quoted(path)}", expected)
    return path.rstrip("/") or "/"


def request_path(value: Any) -> str:
    """A path to ask for, with its query where there is one."""
    expected = "a path such as /healthz or /health?full=1"
    path = text(value, expected)
    if not path.startswith("/"):
        raise Wrong(f"is {quoted(path)}", expected + ", beginning with a slash", f"/{path}")
    if not re.fullmatch(r"[!-~]+", path) or "#" in path:
        raise Wrong(f"has a character that must be percent-encoded: {quoted(path)}", expected)
    return path


def authority(value: Any) -> str:
    """What a Host header says, lower case: a name or an IP address, perhaps with a port."""
    expected = "a host such as shop.internal or shop.internal:8443"
    written = text(value, expected).lower()
    name_part, port = written, ""
    if match := re.fullmatch(r"(.*):([1-9][0-9]{0,4})", written):
        name_part, port = match[1], match[2]
    if name_part.startswith("[") and name_part.endswith("]"):
        is_host = _is_ip(name_part[1:-1]) and ":" in name_part
    else:
        is_host = ":" not in name_part and (_is_ip(name_part) or _is_host_name(name_part))
    if not is_host or int(port or 1) > 65_535:
        raise Wrong(f"is {quoted(str(value))}", expected, _nearest_host(written))
    return written


def url(value: Any) -> str:
    """Where a hook goes: an absolute URL of http or https, without user and fragment."""
    expected = "a URL such as https://example.com/hook"
    written = text(value, expected)
    parts = re.fullmatch(r"(https?)://([^/?#@]+)([/?][!-~]*)?", written)
    if parts is None or "#" in written:
        meant = f"https://{written}" if re.match(r"[a-z0-9.-]+(/|$)", written) else ""
        raise Wrong(f"is {quoted(written)}", expected, meant)
    host_part = parts[2]
    if not re.search(r":[0-9]+$", host_part):
        host_part += ":443" if parts[1] == "https" else ":80"
    _address(host_part)
    return written


def network(value: Any) -> str:
    """A network, one address, or `unix:` for peers on unix sockets, who are believed."""
    expected = "a network such as 10.0.0.0/8, an address, or unix:"
    written = text(value, expected)
    if written == "unix:":
        return written
    try:
        return str(_network(written))
    except ValueError:
        raise Wrong(f"is {quoted(written)}", expected, _nearest_network(written)) from None


def _address(value: Any) -> str:
    written = text(value, _EXPECTED)
    if written.startswith("unix:"):
        return _unix(written)
    name_part, colon, port = written.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]+", port):
        raise Wrong(f"is {quoted(written)}, without a port", _EXPECTED, _nearest_address(written))
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
        raise Wrong(f"has the port {quoted(port)[1:-1]}", "a port from 1 to 65535")
    return f"{_address_host(written, name_part)}:{port}"


def _address_host(written: str, name_part: str) -> str:
    if name_part.startswith("[") and name_part.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(name_part[1:-1])}]"
        except ValueError:
            raise Wrong(f"is {quoted(written)}, no IPv6 address", _EXPECTED) from None
    if ":" in name_part:
        port = written.rpartition(":")[2]
        meant = f"[{name_part}]:{port}" if _is_ip(name_part) else _nearest_address(written)
        raise Wrong(f"is {quoted(written)}", _EXPECTED, meant)
    lowered = name_part.lower()
    if _is_ip(lowered) or _is_host_name(lowered):
        return lowered
    raise Wrong(f"is {quoted(written)}, whose host is neither a name nor an IP address", _EXPECTED)


def _unix(written: str) -> str:
    path = written.removeprefix("unix:")
    if path.startswith("@"):  # anybody on the machine could connect, or be there before us
        raise Wrong(f"is {quoted(written)}", "a path: an abstract socket has no permissions")
    if not path.startswith("/") or path.endswith("/"):
        meant = "unix:/" + path.strip("/") if path.strip("/") else ""
        raise Wrong(f"is {quoted(written)}", _EXPECTED, meant)
    if len(path.encode(errors="replace")) > _LONGEST_UNIX_PATH:
        raise Wrong(f"is {quoted(written)}", f"a path of {_LONGEST_UNIX_PATH} bytes at most")
    return written


def _nearest_address(written: str) -> str:
    bare = re.sub(r"^[a-z]+://", "", written).partition("/")[0]
    if bare == written:
        return ""
    return bare if ":" in bare else f"{bare}:443" if written.startswith("https:") else f"{bare}:80"


def _is_ip(written: str) -> bool:
    try:
        ipaddress.ip_address(written)
    except ValueError:
        return False
    return True


def _is_host_name(lowered: str) -> bool:
    labels = lowered.split(".")
    if len(lowered) > 253 or labels[-1].isdigit():  # 10.0.0.256 is no name, but a slip
        return False
    return all(_LABEL.fullmatch(label) for label in labels)


def _nearest_host(pattern: str) -> str:
    bare = re.sub(r"^[a-z]+://", "", pattern).partition("/")[0].rstrip(".")
    bare = re.sub(r":[0-9]+$", "", bare)
    try:
        encoded = bare.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return encoded if encoded != pattern and _is_host_name(encoded.removeprefix("*.")) else ""


def _network(written: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if "/" in written and not re.search(r"/[0-9]{1,3}$", written):
        raise ValueError(written)
    return ipaddress.ip_network(written)


def _nearest_network(written: str) -> str:
    try:
        return str(ipaddress.ip_network(written, strict=False))
    except ValueError:
        return ""
