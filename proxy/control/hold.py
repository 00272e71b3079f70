"""Hold and release: new requests of a service wait by an operator's word, and are let go again.

Pure. A release stays in the state until the last of those that waited has gone, so that
whoever looks sees it, and so that every worker goes by the same times.
"""

from __future__ import annotations

from dataclasses import replace

from proxy.control.config.values import duration_text
from proxy.control.decision import Author, Decision, because
from proxy.control.refusal import Refused
from proxy.control.state import Change, Holding, ServiceState

TIMEOUT_S = 30.0
MOST = 1_000
OVER_S = 5.0
GRACE_S = 2.0
"""Workers let go by a timer; only after this much more do we call a release over."""


def hold(
    state: ServiceState,
    author: Author,
    *,
    timeout_s: float = TIMEOUT_S,
    most: int = MOST,
    until: float | None = None,
) -> Change:
    """Have new requests wait; on a service that holds already, change how long and how many.

    A release under way stops: who has not gone yet goes on waiting.
    """
    before = state.hold
    is_held = before is not None and before.released is None
    holding = Holding(
        since=before.since if before is not None and is_held else author.at,
        who=author.who,
        reason=author.reason,
        timeout_s=timeout_s,
        most=most,
        until=until,
    )
    record = Decision(
        what="hold",
        who=author.who,
        service=state.name,
        before=_in_words(before) if is_held else None,
        after=_in_words(holding),
        why=because("by hand", author.reason),
        numbers={} if until is None else {"ttl_s": round(until - author.at, 3)},
    )
    return Change(state=replace(state, hold=holding), decisions=(record,))


def release(state: ServiceState, author: Author, *, held: int, over_s: float = OVER_S) -> Change:
    """Let new requests through, and those that wait (`held` of them) go over `over_s`.

    On a release under way: let the rest go over `over_s` from now on.
    """
    if state.hold is None:
        raise Refused(f"{state.name} is not on hold; nothing waits to be released")
    return _released(state, state.hold, author, "by hand", held=held, over_s=over_s)


def expire(state: ServiceState, now: float, *, held: int) -> Change | None:
    """Release what was held for a time that is over; None when there is nothing to release."""
    holding = state.hold
    if holding is None or holding.until is None or holding.until > now or not holding.is_held:
        return None
    author = Author(who="ttl", reason=holding.reason, at=now)
    sentence = f"the time set by {holding.who} is over"
    return _released(state, holding, author, sentence, held=held, over_s=OVER_S)


def finish(state: ServiceState, now: float, *, held: int) -> ServiceState | None:
    """Forget a release when nobody waits any more; None when there is nothing to forget."""
    holding = state.hold
    if holding is None or holding.released is None:
        return None
    if held and now < holding.released + holding.over_s + GRACE_S:
        return None
    return replace(state, hold=None)


def next_look(state: ServiceState) -> bool:
    """Whether time alone will bring `expire` or `finish` something to do."""
    holding = state.hold
    return holding is not None and (holding.until is not None or not holding.is_held)


def _released(
    state: ServiceState,
    holding: Holding,
    author: Author,
    sentence: str,
    *,
    held: int,
    over_s: float,
) -> Change:
    record = Decision(
        what="release",
        who=author.who,
        service=state.name,
        before=_in_words(holding),
        after=None,
        why=because(sentence, author.reason),
        numbers={
            "held": held,
            "over_s": over_s,
            "held_for_s": round(author.at - holding.since, 3),
        },
    )
    after = replace(holding, released=author.at, over_s=over_s)
    return Change(state=replace(state, hold=after), decisions=(record,))


def _in_words(holding: Holding | None) -> dict[str, str | int] | None:
    if holding is None:
        return None
    return {"timeout": duration_text(holding.timeout_s), "most": holding.most}
