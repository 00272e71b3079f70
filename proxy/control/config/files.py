"""The files that a configuration names: certificates, keys, pages; read whole, and compared.

A relative path is looked for beside the configuration first, then in the working directory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from proxy.control.config.problem import Finding, Path
from proxy.control.config.schema import Config
from proxy.control.config.sections.listener import ListenerTls
from proxy.control.config.sections.pool import PoolTls

LARGEST = 256 * 1024
"""Bytes of one file: they travel to every worker."""
MOST_PAGES = 64
PAGES = ".html"
_PAGE = re.compile(r"([45]([0-9]([0-9]|x)|xx)|error)\.html").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A file or folder that the configuration names at `path`, as it is written there."""

    path: Path
    written: str
    is_folder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a certificate among the files says of itself; times are wall-clock seconds."""

    names: tuple[str, ...]
    """DNS names in lower case; the common name where it has no others."""
    not_before: float
    not_after: float
    fingerprint: str
    """SHA-256 in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the named files held when the configuration was read, by the path as it is written."""

    base: str = "."
    """The folder beside which relative paths are looked for first."""
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Of a folder: its pages, each by `folder/name`."""
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of each folder's pages, by the folder as it is written."""
    certificates: Mapping[str, CertificateFacts] = field(default_factory=dict)
    """What is known of those that are shown to clients and endpoints."""

    def text(self, written: str | None) -> str:
        """A file's text; empty where none is named."""
        return "" if written is None else self.contents[written].decode("utf-8")

    def pages(self, written: str) -> dict[str, str]:
        """The pages of a folder by their names, or the one file as `error.html`."""
        if written not in self.folders:
            return {"error.html": self.text(written)}
        return {name: self.text(_inside(written, name)) for name in self.folders[written]}

    @property
    def sha256(self) -> str:
        """Of all contents; hex, empty where no file is named."""
        return digest(self.contents)


def named(config: Config) -> Iterator[Named]:
    """Every file that the configuration names."""
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None:
            yield from _of_listener(("listeners", index, "tls"), listener.tls)
    for name, service in config.services.items():
        for pool, filled in service.pools.items():
            if filled.tls is not None:
                yield from _of_pool(("services", name, "pools", pool, "tls"), filled.tls)
        if service.errors is not None:
            path = ("services", name, "errors", "page")
            yield Named(path=path, written=service.errors.page, is_folder=True)


def _of_listener(path: Path, tls: ListenerTls) -> Iterator[Named]:
    for index, pair in enumerate(tls.certificates):
        yield Named(path=(*path, "certificates", index, "cert"), written=pair.cert)
        yield Named(path=(*path, "certificates", index, "key"), written=pair.key)
    if tls.client_ca is not None:
        yield Named(path=(*path, "client_ca"), written=tls.client_ca)


def _of_pool(path: Path, tls: PoolTls) -> Iterator[Named]:
    for key, written in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if written is not None:
            yield Named(path=(*path, key), written=written)


def read(names: Iterable[Named], base: str) -> tuple[Files, list[Finding]]:
    """Read all of them; a finding for each that cannot be."""
    contents: dict[str, bytes] = {}
    folders: dict[str, tuple[str, ...]] = {}
    findings = []
    for each in names:
        try:
            found = _read(each, base)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or not UTF-8
            why = (getattr(error, "strerror", None) or "").lower() or str(error)
            findings.append(Finding(path=each.path, what=f"cannot be read: {why}"))
            continue
        contents.update(found)
        if each.is_folder and each.written not in found:
            folders[each.written] = tuple(name.rpartition("/")[2] for name in found)
    return Files(base=base, contents=contents, folders=folders), findings


def _read(name: Named, base: str) -> dict[str, bytes]:
    place = located(name.written, base)
    if not name.is_folder:
        return {name.written: _content(place)}
    if not place.is_dir():
        if place.suffix != PAGES:
            place.stat()  # that there is none is the first thing to be told
            raise ValueError(f"it is neither a directory nor a {PAGES} file")
        return {name.written: _content(place)}
    pages = sorted(each for each in place.iterdir() if each.suffix == PAGES)
    if not pages:
        raise FileNotFoundError(2, f"there is no {PAGES} file in the directory")
    if len(pages) > MOST_PAGES:
        raise ValueError(f"there are more than {MOST_PAGES} pages in the directory")
    for page in pages:
        if _PAGE(page.name) is None:
            raise ValueError(f"{page.name} is for no status, as 502.html, 5xx.html, error.html are")
    return {_inside(name.written, each.name): _content(each) for each in pages}


def _inside(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def fingerprint(path: str, names: Iterable[Named]) -> str:
    """Of a configuration's file and of what it names, as they are now; unreadable ones are left out."""
    base, contents = str(FilePath(path).parent), dict[str, bytes]()
    for each in names:
        with suppress(OSError, ValueError):
            contents.update(_read(each, base))
    try:
        text = hashlib.sha256(FilePath(path).read_bytes()).hexdigest()
    except OSError:
        text = ""
    return joined(text, digest(contents))


def joined(text_sha256: str, files_sha256: str) -> str:
    """The fingerprint of a configuration that was read, by what `Loaded` says of it."""
    return f"{text_sha256}:{files_sha256}"


def located(written: str, base: str) -> FilePath:
    """Where a path leads to: beside the configuration if something is there."""
    beside = FilePath(base, written)
    return beside if beside.exists() else FilePath(written)


def _content(place: FilePath) -> bytes:
    with place.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024} KiB")
    content.decode("utf-8")
    return content


def digest(contents: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over names and contents; empty for none."""
    if not contents:
        return ""
    whole = hashlib.sha256()
    for name in sorted(contents):
        content = contents[name]
        whole.update(b"%d %d " % (len(name.encode()), len(content)) + name.encode() + content)
    return whole.hexdigest()
