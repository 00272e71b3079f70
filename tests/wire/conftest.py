"""Fixtures of the raw cases: a box for each, on uvloop and on the standard loop."""

from tests.dataplane.conftest import box, pytest_asyncio_loop_factories

__all__ = ["box", "pytest_asyncio_loop_factories"]
