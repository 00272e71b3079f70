"""A file that the configuration names changes: that is a change of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.control.conftest import Until, World

ACTIVE = "    active: blue\n"


@pytest.fixture
def paged(world: World) -> World:
    """The service has a page of its own for 502."""
    (world.directory / "pages").mkdir()
    (world.directory / "pages/502.html").write_text("<p>one</p>")
    world.edit((ACTIVE, f"{ACTIVE}    errors: {{page: pages/}}\n"))
    return world


def pages(world: World) -> list[str]:
    (service,) = (each for each in world.fleet.snapshot.services if each.name == "shop")
    return [page.html for page in service.pages]


async def test_a_changed_file_is_noticed_applied_and_recorded(paged: World, until: Until) -> None:
    controller = await paged.start(watch_file=True)
    assert pages(paged) == ["<p>one</p>"]
    (paged.directory / "pages/502.html").write_text("<p>two</p>")
    await until(lambda: pages(paged) == ["<p>two</p>"])
    decision = controller.decisions(None, since=0, limit=1)[-1]
    assert decision["why"] == "the file pages/502.html changed"
    assert "<p>" not in str(decision), "what it holds is nobody's business"


async def test_a_file_that_is_gone_leaves_what_it_held_and_is_told_until_it_is_back(
    paged: World, until: Until
) -> None:
    controller = await paged.start(watch_file=True)
    (paged.directory / "pages/502.html").unlink()
    await until(lambda: controller.status()["config"]["last_error"] is not None)
    assert "errors.page: cannot be read" in controller.status()["config"]["last_error"]
    assert pages(paged) == ["<p>one</p>"]
    (paged.directory / "pages/502.html").write_text("<p>two</p>")
    await until(lambda: pages(paged) == ["<p>two</p>"])
    assert controller.status()["config"]["last_error"] is None


async def test_a_file_that_a_new_configuration_misses_is_waited_for(
    world: World, until: Until
) -> None:
    controller = await world.start(watch_file=True)
    world.edit((ACTIVE, f"{ACTIVE}    errors: {{page: sorry.html}}\n"))
    await until(lambda: controller.status()["config"]["last_error"] is not None)
    (world.directory / "sorry.html").write_text("<p>sorry</p>")
    await until(lambda: pages(world) == ["<p>sorry</p>"])


async def test_a_fault_of_ours_is_visible_and_ends_no_watch(
    paged: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = await paged.start(watch_file=True)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(controller._ledger, "_build", fail)
        (paged.directory / "pages/502.html").write_text("<p>two</p>")
        await until(lambda: controller.status()["config"]["last_error"] is not None)
        assert "a fault of Turnout" in controller.status()["config"]["last_error"]
    assert pages(paged) == ["<p>one</p>"]
    (paged.directory / "pages/502.html").write_text("<p>three</p>")
    await until(lambda: pages(paged) == ["<p>three</p>"])
    assert controller.status()["config"]["last_error"] is None
