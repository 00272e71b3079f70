"""The files that a configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from proxy.control.config import files
from proxy.control.config.load import Loaded, load_file
from proxy.control.config.problem import ConfigInvalid

AUTHORITY = trustme.CA().cert_pem.bytes().decode()
TEXT = """
listeners: [{bind: "127.0.0.1:8080"}]
services:
  shop:
    routes: [{host: shop.example.com}]
    pools: {blue: {endpoints: ["127.0.0.1:9001"], tls: {ca: ca.pem}}}
    active: blue
    errors: {page: pages/}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text(AUTHORITY)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/502.html").write_text("<p>down</p>")
    (tmp_path / "pages/notes.txt").write_text("no page")
    (tmp_path / "turnout.yaml").write_text(TEXT)
    return tmp_path / "turnout.yaml"


def load(config: Path) -> Loaded:
    return load_file(str(config), {})


def test_relative_paths_are_looked_for_beside_the_configuration(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    found = load(config).files
    assert found.text("ca.pem") == AUTHORITY
    assert found.pages("pages/") == {"502.html": "<p>down</p>"}


def test_and_then_in_the_working_directory(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = config.parent / "elsewhere"
    elsewhere.mkdir()
    (config.parent / "ca.pem").rename(elsewhere / "ca.pem")
    monkeypatch.chdir(elsewhere)
    assert load(config).files.text("ca.pem") == AUTHORITY


def test_one_file_may_be_the_page_for_everything(config: Path) -> None:
    (config.parent / "sorry.html").write_text("<p>sorry</p>")
    config.write_text(TEXT.replace("pages/", "sorry.html"))
    assert load(config).files.pages("sorry.html") == {"error.html": "<p>sorry</p>"}


def test_every_file_that_cannot_be_read_is_told_with_its_place(config: Path) -> None:
    (config.parent / "ca.pem").unlink()
    (config.parent / "pages/502.html").unlink()
    with pytest.raises(ConfigInvalid) as caught:
        load(config)
    assert [str(each).partition("turnout.yaml:")[2] for each in caught.value.problems] == [
        "6:61: services.shop.pools.blue.tls.ca: cannot be read: no such file or directory",
        "8:20: services.shop.errors.page: cannot be read: there is no .html file in the directory",
    ]


@pytest.mark.parametrize("content", [b"x" * (files.LARGEST + 1), b"\xff\xfe"])
def test_a_file_that_is_too_large_or_no_text_is_refused(config: Path, content: bytes) -> None:
    (config.parent / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"tls\.ca: cannot be read"):
        load(config)


def test_the_fingerprint_is_of_all_that_was_read(config: Path) -> None:
    loaded = load(config)
    names = tuple(files.named(loaded.config))
    assert files.fingerprint(str(config), names) == loaded.fingerprint
    for each in ("ca.pem", "pages/502.html", "turnout.yaml"):
        before = files.fingerprint(str(config), names)
        (config.parent / each).write_text("other")
        assert files.fingerprint(str(config), names) != before
    (config.parent / "ca.pem").unlink()
    assert files.fingerprint(str(config), names) != before


def test_what_is_read_is_not_shown(config: Path) -> None:
    (config.parent / "ca.pem").write_text(f"a secret\n{AUTHORITY}")
    assert "a secret" not in repr(load(config))


@pytest.mark.parametrize(
    "name", ["index", "200", "50", "5x", "502x", "x02", "Error", "errors", "600"]
)
def test_a_page_that_no_answer_would_ever_have_is_refused(config: Path, name: str) -> None:
    (config.parent / f"pages/{name}.html").write_text("x")
    with pytest.raises(
        ConfigInvalid, match=rf"errors\.page: cannot be read: {name}\.html is for no"
    ):
        load(config)


@pytest.mark.parametrize("name", ["404", "50x", "5xx", "4xx", "error", "503"])
def test_pages_are_for_a_status_for_several_or_for_all(config: Path, name: str) -> None:
    (config.parent / f"pages/{name}.html").write_text("x")
    assert load(config).files.pages("pages/")[f"{name}.html"] == "x"


def test_a_folder_has_its_own_pages_only_whatever_else_is_named_below_it(config: Path) -> None:
    (config.parent / "pages/tls").mkdir()
    (config.parent / "pages/tls/503.key").write_text("a secret")
    (config.parent / "pages/tls/502.html").write_text("<p>another service's</p>")
    names = [
        files.Named(path=(), written="pages/", is_folder=True),
        files.Named(path=(), written="pages/tls", is_folder=True),
        files.Named(path=(), written="pages/tls/503.key"),
    ]
    found, findings = files.read(names, str(config.parent))
    assert findings == []
    assert found.pages("pages/") == {"502.html": "<p>down</p>"}
    assert found.pages("pages/tls") == {"502.html": "<p>another service's</p>"}


def test_what_is_no_page_is_not_shown_as_one(config: Path) -> None:
    config.write_text(TEXT.replace("pages/", "ca.pem"))
    with pytest.raises(ConfigInvalid, match="neither a directory nor a"):
        load(config)
