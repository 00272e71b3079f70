"""A minute of fuzzing over all targets: the same inputs every time, unless FUZZ_SEED says otherwise.

A fixed seed, so that a change fails for what it does and not for its luck: `make fuzz` draws.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz import engine

SEED = int(os.environ.get("FUZZ_SEED", "5"))


@pytest.mark.parametrize("name", engine.names())
def test_nothing_is_found_in_a_few_seconds_of_mutations(name: str) -> None:
    target = engine.load(name)
    mutator = engine.Mutator(target, SEED)
    try:
        mutator.run(executions=target.A_WHILE)
    except engine.Finding as finding:
        pytest.fail(f"seed {SEED}, after {mutator.executions} executions: {finding}")
    assert mutator.executions == target.A_WHILE
    assert mutator.shapes > 5, "whatever comes, the same happens: the target looks at nothing"
