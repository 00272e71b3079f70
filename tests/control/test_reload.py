from __future__ import annotations

from dataclasses import replace

from proxy.control.config.files import Files
from proxy.control.config.load import Loaded, load_text
from proxy.control.config.sections.door import ErrorsConfig
from proxy.control.keys import hex_keys
from proxy.control.reload import Circumstances, adopt, fixed_keys_changed, resume
from proxy.control.setup import Setup

TEXT = """
listeners: [{bind: "127.0.0.1:8080"}]
services:
  shop:
    routes: [{path: /}]
    pools: {blue: {endpoints: ["127.0.0.1:9001"]}, green: {endpoints: ["127.0.0.1:9101"]}}
    active: blue
    sticky: {by: cookie, secret: one}
"""
AROUND = Circumstances(now=1000.0, draw_offset=lambda: 42, secret="made")


def load(*changes: tuple[str, str]) -> Loaded:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load_text(text, "test", {})


def started() -> Setup:
    return resume(Setup(loaded=load()), AROUND).setup


def test_the_same_file_changes_nothing() -> None:
    setup = started()
    step = adopt(setup, load(), AROUND)
    assert (step.setup.states, step.setup.rings) == (setup.states, setup.rings)
    assert (step.decisions, step.touched) == ((), frozenset())


def test_each_changed_key_leaves_a_record_without_its_secret() -> None:
    step = adopt(
        started(),
        load(("secret: one", "secret: two"), ("active: blue", "active: blue\n    balance: hash")),
        AROUND,
    )
    assert [each.numbers["key"] for each in step.decisions] == ["sticky", "balance"]
    assert step.decisions[0].before["secret"] == "***"
    assert step.touched == {"shop"}
    assert len(hex_keys(step.setup.rings["shop"], 1000.0)) == 2


def test_keys_beside_the_services_leave_records_too() -> None:
    step = adopt(started(), load(("8080", "8081")), AROUND)
    (record,) = step.decisions
    assert (record.service, record.numbers["key"]) == (None, "listeners")
    assert record.after[0]["bind"] == "127.0.0.1:8081"


def test_a_named_file_that_changed_leaves_a_record_and_so_do_pages_that_came_or_went() -> None:
    def holding(**contents: bytes) -> Loaded:
        held = {f"p/{name}.html": content for name, content in contents.items()}
        loaded = load_text(TEXT, "test", {})
        section = ErrorsConfig(page="p/")
        shop = loaded.config.services["shop"].model_copy(update={"errors": section})
        config = loaded.config.model_copy(update={"services": {"shop": shop}})
        return replace(loaded, config=config, files=Files(contents=held))

    setup = resume(Setup(loaded=holding(gone=b"1", kept=b"2", changed=b"3")), AROUND).setup
    step = adopt(setup, holding(kept=b"2", changed=b"4", new=b"5"), AROUND)
    assert [each.why for each in step.decisions] == [
        "the file p/changed.html changed",
        "the file p/gone.html is gone",
        "the file p/new.html is new",
    ]
    assert [(each.before is None, each.after is None) for each in step.decisions] == [
        (False, False),
        (False, True),
        (True, False),
    ]


def test_a_service_that_begins_split_has_its_own_offset() -> None:
    loaded = load(("active: blue", "active: blue\n    weights: {blue: 90, green: 10}"))
    assert resume(Setup(loaded=loaded), AROUND).setup.states["shop"].offset == 42


def test_a_removed_service_keeps_its_configuration_while_it_leaves() -> None:
    setup = started()
    step = adopt(setup, load(("shop:", "blog:")), AROUND)
    assert set(step.setup.states) == {"shop", "blog"}
    assert step.setup.states["shop"].is_removed
    assert step.setup.services["shop"] == setup.services["shop"]
    again = adopt(step.setup, load(("shop:", "blog:")), AROUND)
    assert again.decisions == ()
    back = adopt(step.setup, load(), AROUND)
    assert not back.setup.states["shop"].is_removed
    assert back.setup.states["shop"].leaving == {}


def test_a_service_without_a_secret_takes_the_stores() -> None:
    setup = Setup(loaded=load((", secret: one", "")))
    other = Circumstances(now=1000.0, draw_offset=lambda: 0, secret="other")
    rings = [resume(setup, around).setup.rings["shop"] for around in (AROUND, AROUND, other)]
    assert rings[0] == rings[1] != rings[2]


def test_keys_that_need_a_restart_are_named() -> None:
    text = 'state: /elsewhere\nadmin: {token: "t0ken", read_token: "r"}\nworkers: 2\nservices:'
    sentences = fixed_keys_changed(load().config, load(("services:", text)).config)
    assert [each.split()[0] for each in sentences] == [
        "state",
        "workers",
        "admin.token",
        "admin.read_token",
    ]
    assert "t0ken" not in " ".join(sentences)
    assert fixed_keys_changed(load().config, load().config) == []
