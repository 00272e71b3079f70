"""Fixtures of the end-to-end tests: stages that end what they started and show the log of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage for one test."""
    yield from _stage(tmp_path, request)


@pytest.fixture(scope="module")
def module_stage(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    """A stage that the tests of one module share."""
    yield from _stage(tmp_path_factory.mktemp("stage"), request)


def _stage(directory: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(directory)
    before = request.session.testsfailed
    try:
        yield stage
    finally:
        # The log goes to stdout, where pytest shows it with the failure.
        if request.session.testsfailed > before:
            print(stage.log()[-8000:])  # noqa: T201
        stage.end()
