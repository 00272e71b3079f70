from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control.config.load import LARGEST_FILE, load_file, load_text
from proxy.control.config.problem import ConfigInvalid
from proxy.control.config.schema import Config

Problems = Callable[..., list[str]]
Load = Callable[..., Config]

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "config").glob("*.yaml")) + sorted(
    (ROOT / "config/examples").glob("*.yaml")
)


def _make_certificates(example: Path) -> None:
    """Run the commands in a file's comment, which stand further in than its words."""
    comment = (line for line in example.read_text().splitlines() if line.startswith("#   "))
    commands = "\n".join(line[1:] for line in comment)
    if "openssl" in commands:
        subprocess.run(["sh", "-ec", commands], check=True, capture_output=True)


def _refused(path: Path) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load_file(str(path), {})
    return str(caught.value).removeprefix(str(path))


def test_a_file_comes_with_its_text_and_hash(tmp_path: Path, minimal: str) -> None:
    path = tmp_path / "turnout.yaml"
    path.write_text(minimal)
    loaded = load_file(str(path), {})
    assert (loaded.path, loaded.text) == (str(path), minimal)
    assert loaded.sha256 == hashlib.sha256(minimal.encode()).hexdigest()
    assert loaded == load_text(minimal, str(path), {}, base=str(tmp_path))


def test_what_is_wrong_is_said_all_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    text = """\
listners: []
listeners:
  - bind: 8080
    timeouts: {header: 10}
admin: {bind: 127.0.0.1}
services:
  shop:
    routes: [{host: shop.example.com, path: checkout}]
    pools:
      blue: {endpoints: ["127.0.0.1:9001", "127.0.0.1:99999"], release: 1.10}
    active: bleu
    balance: leastrequests
    balance: hash
    stiky: {by: "${NOPE}"}
"""
    assert problems(text) == [
        "t.yaml:1:1: listners: unknown key (did you mean listeners)",
        (
            "t.yaml:3:11: listeners[0].bind: is the number 8080, only a port (expected host:port, "
            "[v6]:port or unix:/path; did you mean 0.0.0.0:8080)"
        ),
        (
            "t.yaml:4:24: listeners[0].timeouts.header: is the number 10, without a unit (expected "
            "a duration such as 250ms, 30s, 5m or 1h30m; did you mean 10s)"
        ),
        (
            't.yaml:5:15: admin.bind: is "127.0.0.1", without a port (expected host:port, '
            "[v6]:port or unix:/path)"
        ),
        (
            't.yaml:8:45: services.shop.routes[0].path: is "checkout" (expected a path such as / '
            "or /api, beginning with a slash; did you mean /checkout)"
        ),
        (
            "t.yaml:10:44: services.shop.pools.blue.endpoints[1]: has the port 99999 (expected a "
            "port from 1 to 65535)"
        ),
        (
            "t.yaml:10:73: services.shop.pools.blue.release: is the number 1.1 (expected the name "
            "of a release, such as v42, in quotes)"
        ),
        (
            't.yaml:11:13: services.shop.active: unknown pool "bleu" (expected blue; did you mean '
            "blue)"
        ),
        (
            't.yaml:12:14: services.shop.balance: is "leastrequests" (expected least_requests, '
            "round_robin or hash; did you mean least_requests)"
        ),
        "t.yaml:13:5: services.shop.balance: duplicate key, first given on line 12",
        "t.yaml:14:5: services.shop.stiky: unknown key (did you mean sticky)",
        (
            "t.yaml:14:17: services.shop.stiky.by: the environment variable NOPE is not set "
            "(expected it set, or ${NOPE:-default})"
        ),
    ]


def test_a_missing_key_is_reported_where_its_section_is_named(problems: Problems) -> None:
    assert problems("services:\n  shop:\n    routes: [{}]\n    active: a\n") == [
        "t.yaml:1:1: listeners: is missing (expected a list)",
        "t.yaml:2:3: services.shop.pools: is missing (expected a mapping)",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "the file is a list"),
        ("hello", 'the file is "hello"'),
    ],
)
def test_a_file_that_is_no_mapping_is_told_what_it_lacks(
    problems: Problems, text: str, what: str
) -> None:
    (problem,) = problems(text)
    assert problem.endswith(f"{what} (expected a mapping with listeners and services)")


def test_an_unset_variable_causes_no_second_problem(problems: Problems, minimal: str) -> None:
    text = minimal.replace("active: blue", "active: ${POOL}").replace('"127.0.0.1:9101"', '"${A}"')
    assert [problem.split(": ")[1] for problem in problems(text)] == [
        "services.shop.pools.green.endpoints[0]",
        "services.shop.active",
    ]


def test_the_environment_fills_values_of_every_kind(load: Load, minimal: str) -> None:
    environ = {"POOL": "green", "N": "3", "ON": "true", "W": "12.5", "PORT": "81", "R": "41"}
    text = (
        minimal.replace("active: blue", "active: ${POOL}").replace("8080", "${PORT}")
        + '    weights: {green: "${W}", blue: "${REST:-87.5}"}\n'
        + '    headers: {expose_pool: "${ON}"}\n'
        + '    timeouts: {connect: "${N}s"}\n'
        + "workers: ${N}\n"
    ).replace('["127.0.0.1:9001"]}', '["127.0.0.1:9001"], release: "${R}"}')
    config = load(text, environ=environ)
    service = config.services["shop"]
    assert (config.workers, config.listeners[0].bind) == (3, "127.0.0.1:81")
    assert service.declared_weights() == {"blue": 8750, "green": 1250}
    assert (service.active, service.headers.expose_pool) == ("green", True)
    assert (service.timeouts.connect, service.pools["blue"].release) == (3.0, "41")


def test_defaults_fill_what_a_service_does_not_say(load: Load) -> None:
    config = load(
        service="    timeouts: {response: 5s}\n"
        "    preview: null\n"
        "defaults:\n"
        "  timeouts: {connect: 1s, response: 2s}\n"
        "  balance: hash\n"
        "  preview: {secret: s}\n"
        "  sticky: {by: cookie}\n"
    )
    service = config.services["shop"]
    assert (service.timeouts.connect, service.timeouts.response) == (1.0, 5.0)
    assert (service.balance, service.sticky.by, service.preview) == ("hash", "cookie", None)


def test_services_do_not_share_what_one_of_them_adds_to_a_default(load: Load, minimal: str) -> None:
    text = (
        "defaults: {drain: {requests: 1s}}\n"
        + minimal
        + "    drain: {streams: 1s}\n"
        + "  other: {routes: [{path: /o}], pools: {a: {}}, active: a}\n"
    )
    services = load(text).services
    assert services["shop"].drain.streams == 1.0
    assert services["other"].drain.streams == 300.0
    assert services["other"].drain.requests == 1.0


def test_what_is_wrong_in_the_defaults_is_reported_once_and_there(problems: Problems) -> None:
    top = (
        "  other: {routes: [{path: /o}], pools: {a: {}}, active: a}\n"
        "defaults:\n"
        "  timeouts: {conect: 1s, response: 5}\n"
        "  sticky: {on_zero: finish}\n"
        "  routes: [{path: nonsense}]\n"
        "  active: blue\n"
    )
    found = [problem.split(" (")[0] for problem in problems(top=top)]
    assert found == [
        "t.yaml:12:14: defaults.timeouts.conect: unknown key",
        "t.yaml:12:36: defaults.timeouts.response: is the number 5, without a unit",
        (
            't.yaml:13:21: defaults.sticky.on_zero: "finish" needs a cookie, since by: none does '
            "not remember a client's pool"
        ),
        "t.yaml:14:3: defaults.routes: unknown key",
        "t.yaml:15:3: defaults.active: unknown key",
    ]


IDLE = (
    '  other: {routes: [{path: /o}], pools: {a: {endpoints: ["127.0.0.1:1"]}}, active: a}\n'
    "defaults:\n"
    "  health: {path: /up, headers: {X-Probe: turnout}}\n"
    "  sticky: {by: cookie, on_zero: finish, endpoint: true}\n"
)


def test_a_service_may_choose_what_leaves_a_default_without_effect(
    load: Load, minimal: str
) -> None:
    own = "    health: {type: tcp}\n    sticky: {by: none}\n"
    services = load(minimal + own + IDLE).services
    assert [each.sticky.by for each in services.values()] == ["none", "cookie"]


def test_what_has_no_effect_is_refused_where_both_stand_together(problems: Problems) -> None:
    own = "    health: {type: tcp, path: /own}\n    sticky: {by: none, endpoint: true}\n"
    both = IDLE.replace("path: /up", "type: tcp, path: /up").replace("by: cookie, ", "")
    found = [problem.split(" (")[0] for problem in problems(service=own, top=both)]
    assert found == [
        "t.yaml:10:25: services.shop.health.path: has no effect, since type: tcp only opens a connection",
        "t.yaml:11:34: services.shop.sticky.endpoint: has no effect while clients are not sticky",
        "t.yaml:14:23: defaults.health.path: has no effect, since type: tcp only opens a connection",
        "t.yaml:14:34: defaults.health.headers: has no effect, since type: tcp only opens a connection",
        (
            't.yaml:15:21: defaults.sticky.on_zero: "finish" needs a cookie, since by: none does not '
            "remember a client's pool"
        ),
        "t.yaml:15:39: defaults.sticky.endpoint: has no effect while clients are not sticky",
    ]


@pytest.mark.parametrize("defaults", ["[]", "null", "5", "{timeouts: 5}", "{timeouts: [a, b]}"])
def test_defaults_of_another_shape_are_refused(problems: Problems, defaults: str) -> None:
    assert problems(top=f"defaults: {defaults}\n")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("ejection: of", 'is "of" (expected a mapping, or off'),
        ("ejection: {base_tme: 5s}", "unknown key (did you mean base_time)"),
        ("ejection: {failure_share: 50}", "did you mean 50%"),
        ("ejection: {max_percent: 101}", "from 0 to 100"),
        ("ejection: {base_time: 20s, max_time: 10s}", "longer than ejection.max_time"),
        ("panic: 50", "or off; did you mean 50%"),
    ],
)
def test_a_slip_about_ejection_is_told(problems: Problems, key: str, said: str) -> None:
    (problem,) = problems(service=f"    {key}\n")
    assert said in problem


@pytest.mark.parametrize("key", ["ejection: off", "ejection: {}", "panic: off", "slow_start: 5s"])
def test_ejection_slow_start_and_panic_can_be_set(problems: Problems, key: str) -> None:
    assert problems(service=f"    {key}\n") == []


def test_secrets_do_not_appear_in_problems(problems: Problems) -> None:
    found = problems(
        service="    preview: {secret: 'hunter2 '}\n    sticky: {secret: [hunter2]}\n",
        top="admin: {token: 'hunter;2', read_token: '${READ}'}\n",
        environ={"READ": "hunter\n2"},
    )
    assert len(found) == 4
    assert "hunter" not in "".join(found)


def test_a_file_that_cannot_be_read_is_invalid_with_the_reason(tmp_path: Path) -> None:
    assert _refused(tmp_path / "none.yaml") == ":1:1: cannot be read: No such file or directory"
    assert _refused(tmp_path) == ":1:1: cannot be read: Is a directory"
    assert "cannot be read" in _refused(tmp_path / "nul\0")


def test_a_file_that_is_not_utf8_is_invalid_at_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin1.yaml"
    path.write_bytes("workers: 1\nstate: café\n".encode("latin-1"))
    assert _refused(path) == ":2:11: is not UTF-8: the byte 0xe9 (expected a text file in UTF-8)"


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    assert "is larger than 4 MiB" in _refused(path)


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path, minimal: str) -> None:
    path = tmp_path / "turnout.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + minimal.replace("\n", "\r\n").encode())
    assert load_file(str(path), {}).config.services["shop"].active == "blue"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_is_valid_without_any_environment(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _make_certificates(path)
    text = load_file(str(path), {}).text
    schema = text.partition("\n")[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == ROOT / "config/schema.json"


def test_the_main_file_is_what_the_documentation_promises() -> None:
    config = load_file(str(ROOT / "config/turnout.yaml"), {}).config
    (service,) = config.services.values()
    assert config.listeners[0].bind == "0.0.0.0:8080"
    assert config.admin.bind == "127.0.0.1:9900"
    assert service.routes[0].host is None
    assert {name: [e.address for e in pool.endpoints] for name, pool in service.pools.items()} == {
        "blue": ["127.0.0.1:9001", "127.0.0.1:9002"],
        "green": ["127.0.0.1:9101"],
    }


def test_loading_a_usual_file_is_quick() -> None:
    path = str(ROOT / "config/turnout.yaml")
    took = []
    for _ in range(5):
        before = time.process_time()
        load_file(path, {})
        took.append(time.process_time() - before)
    assert min(took) < 0.1


LINES = st.lists(
    st.sampled_from(
        [
            "listeners:",
            "  - bind: 127.0.0.1:80",
            "    timeouts: {header: 10s}",
            "admin: {bind: 0.0.0.0:1}",
            "defaults: &d",
            "  sticky: {by: cookie}",
            "  sticky: *d",
            "services:",
            "  shop: *d",
            "  shop:",
            "    routes: [{path: /}]",
            "    pools: {blue: {}, green: {endpoints: [5, x, '${X}']}}",
            "    active: ${X:-blue}",
            "    weights: {blue: .nan, green: 1e400}",
            "    weights: {blue: 100}",
            "  1: {}",
            "workers: -1",
            "- x",
        ]
    ),
    max_size=12,
).map("\n".join)


@settings(deadline=None, max_examples=300)
@given(LINES | st.text())
def test_any_text_is_a_configuration_or_invalid_and_nothing_else(text: str) -> None:
    try:
        load_text(text, "t.yaml", {})
    except ConfigInvalid as invalid:
        assert invalid.problems  # noqa: PT017 - most texts are invalid, some are not
        for problem in invalid.problems:
            assert problem.line >= 1
            assert str(problem).isprintable()


@settings(deadline=None)
@given(raw=st.binary(max_size=200))
def test_random_bytes_are_invalid_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigInvalid):
        load_file(str(path), {})
