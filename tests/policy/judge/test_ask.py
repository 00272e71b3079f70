"""What the old pool says when it is asked whether turning back would help."""

from __future__ import annotations

import pytest

from proxy.policy.judge.ask import Reply, reply


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ((320, 160, 80, 0), Reply.BETTER),
        ((320, 160, 80, 41), Reply.NO_BETTER),
        ((320, 160, 3, 1), Reply.UNDECIDED),
        ((320, 160, 0, 0), Reply.UNDECIDED),
        ((0, 0, 80, 40), Reply.UNDECIDED),
        ((320, 0, 80, 0), Reply.UNDECIDED),
        ((320, 320, 80, 80), Reply.NO_BETTER),
    ],
)
def test_it_is_better_no_better_or_undecided(
    sums: tuple[float, float, float, float], expected: Reply
) -> None:
    assert reply(sums) is expected
