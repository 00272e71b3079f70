from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from proxy import model
from proxy.control.config.explain import fields_of, section_of
from proxy.control.config.schema import Config, json_schema
from proxy.control.config.sections.section import Section

Problems = Callable[..., list[str]]
Load = Callable[..., Config]


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in fields_of(section).values():
        if inner := section_of(field):
            yield from _sections(inner[1])


def test_the_defaults_are_those_of_the_data_planes_nouns(load: Load) -> None:
    config = load()
    listener, service = config.listeners[0], config.services["shop"]
    noun = model.Listener(bind="")
    assert (listener.timeouts.header, listener.timeouts.idle) == (noun.header_s, noun.idle_s)
    assert tuple(listener.limits.__dict__.values()) == (
        noun.max_header,
        noun.max_headers,
        noun.max_connections,
        noun.max_per_client,
    )
    written = {f"{key}_s": value for key, value in service.timeouts}
    assert model.Timeouts(**written) == model.Timeouts()
    assert service.retry is not None
    assert model.Retries(**dict(service.retry)) == model.Retries()
    sticky = model.Sticky()
    assert (service.sticky.by, service.sticky.max_idle, service.sticky.max_age) == (
        sticky.by,
        sticky.max_idle_s,
        sticky.max_age_s,
    )
    assert (service.sticky.on_zero, service.sticky.on_unavailable, service.sticky.endpoint) == (
        sticky.on_zero,
        sticky.on_unavailable,
        sticky.endpoint,
    )
    assert (config.access_log.path, config.access_log.format) == (
        model.AccessLog().path,
        model.AccessLog().format,
    )


def test_values_come_out_ready_for_use(load: Load) -> None:
    service = load(
        service="    weights: {blue: 99.5, green: 0.5}\n"
        "    drain: {requests: 1h30m}\n"
        "    limits: {max_body: 1MiB}\n"
        "    sticky: {by: 'header:X-User'}\n"
    ).services["shop"]
    assert service.weights == {"blue": 9950, "green": 50}
    assert service.drain.requests == 5400.0
    assert service.limits.max_body == 2**20
    assert (service.sticky.by, service.sticky.header) == ("header", "X-User")


def test_retries_can_be_switched_off_for_one_service(load: Load, minimal: str) -> None:
    defaults = "defaults:\n  retry: {budget: 12.5%, rescue: false}\n"
    inherited = load(minimal + "    retry: {attempts: 2}\n" + defaults).services["shop"].retry
    assert inherited is not None
    assert (inherited.attempts, inherited.budget, inherited.rescue) == (2, 1250, False)
    config = load(minimal + "    retry: off\n" + defaults)
    assert config.services["shop"].retry is None
    assert config.view()["services"]["shop"]["retry"] == "off"


def test_an_endpoint_is_an_address_or_a_mapping(load: Load, minimal: str) -> None:
    text = minimal.replace(
        '["127.0.0.1:9001"]', '["127.0.0.1:9001", {address: "unix:/run/a.sock", weight: 3}]'
    )
    endpoints = load(text).services["shop"].pools["blue"].endpoints
    assert [(endpoint.address, endpoint.weight) for endpoint in endpoints] == [
        ("127.0.0.1:9001", 1),
        ("unix:/run/a.sock", 3),
    ]


def test_without_weights_the_active_pool_has_all(load: Load) -> None:
    assert load().services["shop"].declared_weights() == {"blue": 10_000, "green": 0}


def test_a_pool_that_the_weights_do_not_name_has_none(load: Load) -> None:
    service = load(service="    weights: {green: 100}\n").services["shop"]
    assert service.declared_weights() == {"blue": 0, "green": 10_000}


def test_nobody_changes_a_configuration(load: Load) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load(), "workers", 3)  # noqa: B010 - a type checker would refuse the plain form


def test_secrets_are_shown_neither_by_repr_nor_by_the_view(load: Load, minimal: str) -> None:
    text = (
        minimal + "    preview: {secret: hunter2}\n    sticky: {secret: hunter2}\n"
        "admin: {token: hunter2, read_token: '${READ}'}\n"
    )
    config = load(text, environ={"READ": "hunter3"})
    assert "hunter" not in repr(config)
    assert "hunter" not in str(config.view())
    assert config.view()["admin"]["read_token"] == "***"
    assert config.admin.token is not None
    assert config.admin.token.get_secret_value() == "hunter2"


def test_an_empty_token_is_no_token(load: Load, minimal: str) -> None:
    config = load(minimal + 'admin: {token: "${TOKEN:-}"}\n')
    assert config.admin.token is None


def test_the_view_says_values_as_one_writes_them(load: Load) -> None:
    view = load(service="    weights: {blue: 99.5, green: 0.5}\n").view()
    service = view["services"]["shop"]
    assert service["weights"] == {"blue": 99.5, "green": 0.5}
    assert service["timeouts"]["tunnel_idle"] == "10m"
    assert service["sticky"]["by"] == "none"
    assert view["listeners"][0]["limits"]["max_header"] == "32KiB"
    assert "defaults" not in view


def test_every_key_is_described_in_a_sentence() -> None:
    for section in set(_sections(Config)):
        for key, field in fields_of(section).items():
            assert field.description, f"{section.__name__}.{key}"
            assert field.description.endswith("."), f"{section.__name__}.{key}"


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _objects(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _objects(item)


def test_the_json_schema_refuses_unknown_keys_everywhere() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for item in _objects(schema):
        if item.get("type") == "object" and "properties" in item:
            assert item["additionalProperties"] is False


def test_the_json_schema_has_the_keys_of_the_file() -> None:
    schema = json_schema()
    assert list(schema["properties"]) == list(fields_of(Config))
    assert "by" in schema["$defs"]["StickyConfig"]["properties"]
    assert "routes" not in schema["$defs"]["ServiceDefaults"]["properties"]


def test_the_json_schemas_patterns_take_its_own_defaults_and_the_environment() -> None:
    texts = [item for item in _objects(json_schema()) if isinstance(item.get("pattern"), str)]
    assert len(texts) > 20
    for item in texts:
        assert re.search(item["pattern"], "${NAME:-x}")
        if isinstance(item.get("default"), str):
            assert re.search(item["pattern"], item["default"]), item


def test_a_new_dictionary_each_time_so_that_nobody_spoils_the_schema() -> None:
    json_schema().clear()
    assert json_schema()


def test_active_checks_are_on_with_defaults_off_or_absent(load: Load) -> None:
    assert load().services["shop"].health is None
    assert load(service="    health: off\n").services["shop"].health is None
    health = load(service="    health: {}\n").services["shop"].health
    assert health is not None
    assert (health.kind, health.path, health.interval, health.timeout) == (
        "http",
        "/healthz",
        2.0,
        2.0,
    )
    assert (health.rise, health.fall, health.statuses) == (2, 3, ((200, 399),))


def test_a_service_takes_checks_from_the_defaults_and_may_switch_them_off(
    load: Load, minimal: str
) -> None:
    defaults = "defaults:\n  health: {path: /up, fall: 5}\n"
    inherited = load(minimal + "    health: {fall: 2}\n" + defaults).services["shop"].health
    assert inherited is not None
    assert (inherited.path, inherited.fall) == ("/up", 2)
    assert load(minimal + "    health: off\n" + defaults).services["shop"].health is None


def test_headers_of_checks_are_shown_to_nobody(load: Load) -> None:
    text = "    health: {headers: {Authorization: Bearer hush}, statuses: '200, 301-302'}\n"
    config = load(service=text)
    assert "hush" not in str(config.view()) + repr(config)
    health = config.view()["services"]["shop"]["health"]
    assert health["headers"] == {"Authorization": "***"}
    assert health["statuses"] == "200,301-302"


@pytest.mark.parametrize("knob", ["false_alarm", "hard_rate"])
def test_a_knob_of_the_judge_that_it_divides_by_or_always_reaches_is_not_zero(
    problems: Problems, knob: str
) -> None:
    (problem,) = problems(service=f"    guard: {{{knob}: 0%}}\n")
    assert problem.endswith(f'services.shop.guard.{knob}: is "0%" (expected a share above 0%)')


def test_a_holdback_leaves_something_to_the_last_step(problems: Problems) -> None:
    (problem,) = problems(service="    rollout: {holdback: 100%}\n")
    assert "services.shop.rollout.holdback: is" in problem
    assert "leaves nothing" in problem


@pytest.mark.parametrize("written", ["on", "off"])
def test_what_is_on_or_off_is_shown_as_it_is_written(load: Load, written: str) -> None:
    view = load(service=f"    guard: {{latency: {written}}}\n").view()
    assert view["services"]["shop"]["guard"]["latency"] == written
