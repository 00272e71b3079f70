"""Where the admin API is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cli.address import (
    AdminAddress,
    CannotTellError,
    address_of_bind,
    bind_in,
    default_address,
    parse_address,
)
from proxy.cli.exits import CommandError, ExitCode


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
        ("127.0.0.1:9900", "http://127.0.0.1:9900"),
        ("localhost:9900/", "http://localhost:9900"),
        ("https://turnout.example.com/ops/", "https://turnout.example.com:443/ops"),
        ("http://[::1]:9900", "http://[::1]:9900"),
        ("unix:/run/turnout.sock", "unix:/run/turnout.sock"),
        ("unix:///run/turnout.sock", "unix:/run/turnout.sock"),
        ("unix:var/admin.sock", "unix:var/admin.sock"),
    ],
)
def test_an_address_is_read_as_people_write_it(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text", ["ftp://host:1", "http://", "http://host:70000", "unix:", "http://host:1/?a=b", "::1:1"]
)
def test_nonsense_is_a_usage_error_that_says_what_to_write(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_address(text)
    assert caught.value.code == ExitCode.USAGE
    assert "http://HOST:PORT" in caught.value.sentence


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(CommandError) as caught:
        parse_address("http://ann:secret@host:9900")
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    ("bind", "shown"),
    [
        ("0.0.0.0:9900", "http://127.0.0.1:9900"),
        ("[::]:9900", "http://[::1]:9900"),
        ("10.1.2.3:9900", "http://10.1.2.3:9900"),
        ("unix:/run/t.sock", "unix:/run/t.sock"),
    ],
)
def test_what_listens_everywhere_is_reached_on_loopback(bind: str, shown: str) -> None:
    assert str(address_of_bind(bind)) == shown


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("admin:\n  bind: 127.0.0.1:9911\n", "127.0.0.1:9911"),
        (
            "a: 1\nadmin: # the desk\n\n  # here\n  token: x\n  bind: 'unix:/run/a.sock' # b\n",
            "unix:/run/a.sock",
        ),
        ('admin: {token: "x", bind: "[::1]:9911"}   # both\nservices: {}\n', "[::1]:9911"),
        ("admin: {bind: 127.0.0.1:9911}", "127.0.0.1:9911"),
        ('admin:\n  bind: "${HOST:-127.0.0.1}:${PORT}"\n', "127.0.0.1:7000"),
        ("admin:\n  token: x\nlisteners:\n  - bind: 0.0.0.0:80\n", None),
        ("# admin: {bind: 1.2.3.4:5}\nlisteners:\n- bind: 0.0.0.0:80\nservices: {}\n", None),
        ("", None),
    ],
)
def test_the_bind_is_found_by_a_look_at_the_lines(text: str, bind: str | None) -> None:
    assert bind_in(text, {"PORT": "7000"}) == bind


@pytest.mark.parametrize(
    "text",
    [
        "admin: &desk\n  bind: 127.0.0.1:1\n",
        "admin: {token: x,\n  bind: 127.0.0.1:1}\n",
        '{"admin": {"bind": "127.0.0.1:1"}}',
        '"admin": {bind: 127.0.0.1:1}\n',
        "  admin:\n    bind: 127.0.0.1:1\n",
        "admin:\n  bind: &b 127.0.0.1:1\n",
        "admin:\n  <<: *defaults\n",
        'admin:\n  bind: "${UNSET}"\n',
    ],
)
def test_where_the_lines_do_not_tell_the_look_says_so(text: str) -> None:
    with pytest.raises(CannotTellError):
        bind_in(text, {})


def test_without_a_configuration_the_admin_is_on_its_usual_port() -> None:
    assert default_address(None) == AdminAddress("http", "127.0.0.1", 9900)


def test_the_usual_configuration_is_read_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "turnout.yaml").write_text("admin: {bind: 127.0.0.1:9977}\n")
    assert default_address(None).port == 9977


def test_a_configuration_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(CommandError) as caught:
        default_address("nowhere.yaml")
    assert caught.value.code == ExitCode.USAGE
    assert "nowhere.yaml" in caught.value.sentence


def test_where_the_look_cannot_tell_the_loader_does(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "admin: {\n  bind: 127.0.0.1:9955}\nlisteners: [{bind: '127.0.0.1:80'}]\nservices: {}\n"
    )
    assert default_address("c.yaml").port == 9955


def test_an_invalid_file_that_does_not_tell_asks_for_the_address(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("admin: {\n  bind: 127.0.0.1:9955\nlisteners: 3\n")
    with pytest.raises(CommandError, match="--admin") as caught:
        default_address("c.yaml")
    assert caught.value.code == ExitCode.USAGE


def test_a_configuration_that_is_not_there_is_told_of_once(tmp_path: Path) -> None:
    missing = tmp_path / "turnout.yaml"
    with pytest.raises(CommandError) as caught:
        default_address(str(missing))
    assert caught.value.sentence == f"cannot read {missing}: No such file or directory"
