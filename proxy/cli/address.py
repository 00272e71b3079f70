"""Where the admin API is: `--admin`, or the admin bind of the configuration, read cheaply.

Reading the whole configuration costs a quarter of a second of imports. The one value
we need is found by a look at the text; only where that look cannot be sure (anchors,
flow style over several lines, another indentation) the real loader is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from proxy.cli.exits import CommandError, ExitCode

DEFAULT_CONFIG = "config/turnout.yaml"
DEFAULT_BIND = "127.0.0.1:9900"

_FLOW_BIND = re.compile(r"""[{,]\s*bind:\s*("[^"\\]*"|'[^']*'|[^\s,{}"'][^\s,{}]*)""")
_BLOCK_BIND = re.compile(r"""^\s+bind:\s*("[^"\\]*"|'[^']*'|[^\s"'#][^\s#]*)\s*(?:#.*)?$""")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """`scheme` is http, https or unix; `path` is the socket's, or what stands before `/v1`."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


class CannotTellError(Exception):
    """The cheap look at the text is not enough."""


def parse_address(text: str) -> AdminAddress:
    """An address as a person writes it: `http://host:port`, `host:port`, `unix:/path`."""
    if text.startswith("unix:"):
        return _unix(text)
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _bad_address(text) from error
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query:
        raise _bad_address(text)
    standard = 443 if parts.scheme == "https" else 80
    return AdminAddress(parts.scheme, host, port or standard, parts.path.rstrip("/"))


def _unix(text: str) -> AdminAddress:
    path = text.removeprefix("unix:").removeprefix("//")  # unix:///run/x.sock, as others write it
    if not path:
        raise _bad_address(text)
    return AdminAddress("unix", path=path)


def _bad_address(text: str) -> CommandError:
    # A password in the URL would be printed here: leave the user part out.
    shown = re.sub(r"//[^/@]*@", "//", text)
    return CommandError(
        ExitCode.USAGE,
        f"{shown!r} is not an admin address: write http://HOST:PORT or unix:/path",
    )


def address_of_bind(bind: str) -> AdminAddress:
    """Where to connect to reach what listens on `bind`: all interfaces means loopback too."""
    address = parse_address(bind)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host)
    if loopback is None:
        return address
    return AdminAddress(address.scheme, loopback, address.port, address.path)


def default_address(config: str | None) -> AdminAddress:
    """The admin bind of `config`, of config/turnout.yaml if it is there, or the default one."""
    path = Path(config or DEFAULT_CONFIG)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if config is None:
            return address_of_bind(DEFAULT_BIND)
        raise CommandError(ExitCode.USAGE, f"cannot read {path}: {_reason(error)}") from error
    return address_of_bind(_bind_of(text, path))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _bind_of(text: str, path: Path) -> str:
    try:
        return bind_in(text, os.environ) or DEFAULT_BIND
    except CannotTellError:
        return _bind_by_loader(path)


def _bind_by_loader(path: Path) -> str:
    from proxy.control.config.load import load_file  # noqa: PLC0415 - pydantic: only when needed
    from proxy.control.config.problem import ConfigInvalid  # noqa: PLC0415 - the same

    try:
        return load_file(str(path), os.environ).config.admin.bind
    except ConfigInvalid as error:
        raise CommandError(
            ExitCode.USAGE,
            f"cannot tell the admin address from {path}, which is not valid:"
            " mend it (turnout check) or give --admin",
        ) from error


def bind_in(text: str, environ: Mapping[str, str]) -> str | None:
    """`admin.bind` of a configuration's text, None when it has none.

    Raises CannotTellError where a look at the lines is not enough.
    """
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    at = next((i for i, line in enumerate(lines) if re.match(r"admin:(\s|$)", line)), None)
    if at is None:
        if any(not re.match(r"[a-z_]+:|[\s}\])-]", line) for line in lines) or _is_indented(lines):
            raise CannotTellError
        return None
    rest = lines[at].removeprefix("admin:").strip()
    if rest.startswith("{"):
        found = _flow_bind(rest)
    elif not rest or rest.startswith("#"):
        found = _block_bind(lines[at + 1 :])
    else:  # an anchor, an alias, a tag
        raise CannotTellError
    return None if found is None else _expand(found.strip("\"'"), environ)


def _is_indented(lines: list[str]) -> bool:
    return bool(lines) and lines[0][0].isspace()


def _flow_bind(rest: str) -> str | None:
    body = re.sub(r"\s#.*$", "", rest).rstrip()
    if not body.endswith("}"):
        raise CannotTellError
    match = _FLOW_BIND.search(body)
    if match is None and "bind" in body:
        raise CannotTellError
    return match and match[1]


def _block_bind(lines: list[str]) -> str | None:
    for line in lines:
        if not line[0].isspace():
            return None
        if match := _BLOCK_BIND.match(line):
            return match[1]
        if "bind" in line or "<<" in line:
            raise CannotTellError
    return None


def _expand(value: str, environ: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = environ.get(name, default)
        if default is not None and not found:
            return str(default)
        if found is None:
            raise CannotTellError
        return str(found)

    return _VARIABLE.sub(replace, value)
