"""The judge of one rollout: gathers ticks into blocks, bets on them, and says how it stands."""

from __future__ import annotations

from math import log
from typing import Any

from proxy.policy.judge import evidence
from proxy.policy.judge import knobs as constants
from proxy.policy.judge.credit import Credit
from proxy.policy.judge.guards import Guards
from proxy.policy.judge.knobs import Knobs
from proxy.policy.judge.latency import Latency
from proxy.policy.judge.record import AgainstRecord
from proxy.policy.judge.tick import Counts, Tick
from proxy.policy.judge.verdict import Call, Sides, Test, Verdict, share_in_words
from proxy.policy.judge.wealth import TwoSpeeds, Wealth

FORMAT = 1
FEW_CLIENTS = 8
"""With fewer buckets in use there is nothing to clip by: the requests are the units."""
_EDGE = 1e-9


class Judge:
    """`observe` every tick in the order of time; `step` when the weights change.

    A FAIL is latched. All shares are of first attempts.
    """

    def __init__(self, knobs: Knobs | None = None, sides: Sides | None = None) -> None:
        self._knobs = knobs = knobs or Knobs()
        self._sides = sides or Sides()
        # half of the false-alarm budget for errors, a quarter each for latency and 4xx
        self._bar_errors = log(2.0 / knobs.false_alarm)
        self._bar_quarter = log(4.0 / knobs.false_alarm)
        self._bar_pass = log(1.0 / constants.PASS_CHANCE)
        # what the tests own
        self._errors = TwoSpeeds(
            Wealth(len(constants.ERRORS_FAST), constants.CAP_ERRORS),
            Wealth(len(constants.ERRORS_SLOW), constants.CAP_SLOW),
        )
        self._refused = Wealth(len(constants.REFUSED), constants.CAP_MILD)
        self._passes = Wealth(len(constants.PASSES))
        self._latency = Latency(knobs)
        self._guards = Guards(knobs.hard_rate, knobs.min_requests, self._sides)
        # single clients: strict on the candidate, loose on the active pool
        self._credit = Credit(1.0, 3.0)
        self._active_credit = Credit(5.0, 4.0, 3.0)
        self._refused_credit = Credit(1.0, 3.0)
        self._active_refused_credit = Credit(5.0, 4.0, 3.0)
        self._dispersion = self._refused_dispersion = 1.0
        # since the rollout began
        self._has_many_clients = False
        self._seen = [0, 0, 0, 0]
        """Requests and errors of the candidate, and of the active pool; nothing credited."""
        self._seen_refused = [0, 0]
        """Answers of class 4xx of the candidate, and of the active pool."""
        self._credited = 0.0
        self._warm_s = 0.0
        self._block_s = self._slow_s = 0.0
        self._block = _empty()
        self._slow = _empty()
        self._record: AgainstRecord | None = None
        self._failed: Verdict | None = None

    # ---- from outside ----

    def step(self) -> None:
        """The weights have changed: no half minute spans two weights, and PASS starts anew."""
        self._close_half_minute()
        self._errors.restart()
        self._refused.restart()
        self._latency.restart()
        self._passes = Wealth(len(constants.PASSES))

    def watch(self, highest_share: float) -> None:
        """The candidate has everything: where the active pool has no traffic, judge by its record.

        `highest_share` is the upper bound of `record.Record`.
        """
        self.step()
        self._record = AgainstRecord(self._knobs, highest_share)

    def observe(self, tick: Tick) -> Verdict:
        if self._failed is not None:
            return self._failed
        candidate, active = tick.candidate, tick.active
        self._count(candidate, active)
        errors, active_errors, refused, active_refused = self._credit_all(candidate, active)
        broken = self._guards.look(
            (
                tick.at_s,
                candidate.requests - candidate.errors + errors,
                errors,
                active.requests - active.errors + active_errors,
                active_errors,
            ),
            length_s=tick.length_s,
            requests=candidate.requests,
            errors=candidate.errors,
        )
        if broken is not None:
            return self._fail(*broken)
        self._gather(tick, (errors, active_errors, refused, active_refused))
        if self._is_block_full():
            self._close_block()
        verdict = self._standing()
        if verdict.call is Call.FAIL:
            self._failed = verdict
        return verdict

    def usual_s(self, quantile: float) -> float | None:
        """A quantile of the active pool's latency lately, in seconds; None while it is unknown."""
        return self._latency.usual_s(quantile)

    # ---- a tick ----

    def _count(self, candidate: Counts, active: Counts) -> None:
        counts = (candidate.requests, candidate.errors, active.requests, active.errors)
        self._seen = [x + y for x, y in zip(self._seen, counts, strict=True)]
        self._seen_refused[0] += candidate.refused
        self._seen_refused[1] += active.refused

    def _credit_all(self, candidate: Counts, active: Counts) -> tuple[float, float, float, float]:
        """Errors and 4xx of both pools as far as they count, clipped by client."""
        if candidate.requests_by is None or active.requests_by is None:
            return candidate.errors, active.errors, candidate.refused, active.refused
        self._credit.saw(candidate.requests_by)
        self._active_credit.saw(active.requests_by)
        if not self._has_many_clients:
            self._has_many_clients = self._active_credit.clients >= FEW_CLIENTS
        # Both pools or neither: clipped alone, an outage of both would look like the candidate's.
        clip = self._has_many_clients or self._credit.clients >= FEW_CLIENTS
        errors = self._credit.give(candidate.errors_by, candidate.errors, clip=clip)
        active_errors = self._active_credit.give(active.errors_by, active.errors, clip=clip)
        if not candidate.refused and not active.refused:
            return errors, active_errors, 0.0, 0.0
        self._refused_credit.requests = self._credit.requests
        self._active_refused_credit.requests = self._active_credit.requests
        return (
            errors,
            active_errors,
            self._refused_credit.give(candidate.refused_by, candidate.refused, clip=clip),
            self._active_refused_credit.give(active.refused_by, active.refused, clip=clip),
        )

    def _gather(self, tick: Tick, credited: tuple[float, float, float, float]) -> None:
        candidate, active = tick.candidate, tick.active
        errors, active_errors, refused, active_refused = credited
        block = self._block
        block["requests"] += candidate.requests
        block["errors"] += errors
        block["raw"] += candidate.errors
        block["refused"] += refused
        block["active_requests"] += active.requests
        block["active_errors"] += active_errors
        block["active_refused"] += active_refused
        self._block_s += tick.length_s
        # One that hangs finishes nothing, but what waits there is entered as a latency.
        if candidate.requests or any(candidate.latencies or ()):
            self._warm_s += tick.length_s
        if self._knobs.latency:
            is_warm = self._warm_s > self._knobs.warmup_s
            self._latency.add(candidate, active, is_warm=is_warm)

    # ---- a block ----

    def _is_block_full(self) -> bool:
        """By requests and time alone: were it by errors, the bets would not be fair."""
        least, active = self._block["requests"], self._block["active_requests"]
        if active or self._record is None:
            least = min(least, active)
        return least >= constants.BLOCK_REQUESTS or self._block_s >= constants.BLOCK_S - _EDGE

    def _close_block(self) -> None:
        block, length_s = self._block, self._block_s
        if block["errors"]:
            self._dispersion = self._credit.dispersion()
        if block["refused"]:
            self._refused_dispersion = self._refused_credit.dispersion()
        self._credited += block["errors"]
        if block["requests"] and block["active_requests"]:
            self._bet(block, length_s)
        elif block["requests"] and self._record is not None:
            self._record.bet_block(block["requests"], block["errors"], length_s)
        self._latency.close_block(length_s)
        for key, count in block.items():
            self._slow[key] += count
        self._slow_s += length_s
        self._block, self._block_s = _empty(), 0.0
        if self._slow_s >= constants.SLOW_S - _EDGE:
            self._close_half_minute()

    def _bet(self, block: dict[str, float], length_s: float) -> None:
        knobs = self._knobs
        self._errors.fast.bet(
            _excess(
                block, "errors", constants.ERRORS_FAST, 1.0 + knobs.tolerance, knobs.tolerance_abs
            ),
            length_s,
        )
        self._passes.bet(
            _excess(
                block, "raw", constants.PASSES, constants.PASS_TOLERANCE, 2.0 * knobs.tolerance_abs
            ),
            length_s,
        )
        if knobs.count_4xx:
            self._refused.bet(
                _excess(
                    block,
                    "refused",
                    constants.REFUSED,
                    constants.REFUSED_TOLERANCE,
                    constants.REFUSED_TOLERANCE_ABS,
                ),
                length_s,
            )

    def _close_half_minute(self) -> None:
        slow, knobs = self._slow, self._knobs
        if slow["requests"] and slow["active_requests"]:
            self._errors.slow.bet(
                _excess(
                    slow,
                    "errors",
                    constants.ERRORS_SLOW,
                    1.0 + knobs.tolerance,
                    knobs.tolerance_abs,
                ),
                self._slow_s,
            )
        elif slow["requests"] and self._record is not None:
            self._record.bet_half_minute(slow["requests"], slow["errors"], self._slow_s)
        self._latency.close_half_minute(self._slow_s)
        self._slow, self._slow_s = _empty(), 0.0

    # ---- how it stands ----

    def tests(self) -> tuple[Test, ...]:
        """Evidence and bar of every test, as things stand."""
        found = [
            Test(name="errors", evidence=self._errors.log, bar=self._bar_errors * self._dispersion)
        ]
        if self._knobs.latency:
            bar = self._bar_quarter * self._latency.dispersion
            found.append(Test(name="latency", evidence=self._latency.wealth.log, bar=bar))
        if self._knobs.count_4xx:
            bar = self._bar_quarter * self._refused_dispersion
            found.append(Test(name="4xx", evidence=self._refused.log, bar=bar))
        if self._record is not None:
            bar = self._record.bar * self._dispersion
            found.append(Test(name="record", evidence=self._record.wealth.log, bar=bar))
        return tuple(found)

    def _standing(self) -> Verdict:
        tests = self.tests()
        for test in tests:
            is_enough = (
                test.name not in {"errors", "record"} or self._credited >= constants.MIN_ERRORS
            )
            if test.evidence >= test.bar and is_enough:
                return Verdict(
                    call=Call.FAIL, reason=test.name, words=self._in_words(test), tests=tests
                )
        if self._guards.degraded_s > 0.0:
            words = self._guards.degraded_in_words()
            return Verdict(call=Call.HOLD, reason="baseline degraded", words=words, tests=tests)
        if self._is_suspicious():
            words = "; ".join(self._in_words(test) for test in tests if test.evidence > 0)
            return Verdict(call=Call.HOLD, reason="suspicion", words=words, tests=tests)
        if self._passes.log >= self._bar_pass and self._seen[0] >= self._knobs.min_requests:
            return Verdict(
                call=Call.PASS, reason="not worse", words=self._shares_in_words(), tests=tests
            )
        return Verdict(call=Call.CONTINUE, tests=tests)

    def _is_suspicious(self) -> bool:
        is_slow = self._knobs.latency and self._latency.wealth.log >= 0.5 * self._bar_quarter
        record = self._record
        is_off_record = record is not None and record.wealth.log >= 0.5 * record.bar
        return is_slow or is_off_record or self._errors.log >= 0.5 * self._bar_errors

    def _fail(self, reason: str, words: str) -> Verdict:
        self._failed = Verdict(call=Call.FAIL, reason=reason, words=words, tests=self.tests())
        return self._failed

    def _shares_in_words(self) -> str:
        return self._counts_in_words("errors", self._seen[1], self._seen[3])

    def _counts_in_words(self, what: str, count: int, active_count: int) -> str:
        requests, _, active_requests, _ = self._seen
        return (
            f"{what}: {self._sides.candidate} {share_in_words(count, requests)}, "
            f"{self._sides.active} {share_in_words(active_count, active_requests)}{self._since()}"
        )

    def _before(self) -> str:
        return "the pool before it" if self._sides.active == "active" else self._sides.active

    def _since(self) -> str:
        return f" since {self._sides.since}" if self._sides.since else ""

    def _in_words(self, test: Test) -> str:
        part = 2 if test.name == "errors" else 4
        chance = f"false alarm at most 1 in {part / self._knobs.false_alarm:,.0f}"
        numbers = f"evidence {test.evidence:.1f} against {test.bar:.1f} needed; {chance}"
        if test.name == "errors":
            return f"{self._shares_in_words()}; {numbers}"
        if test.name == "record" and self._record is not None:
            requests, errors = self._seen[:2]
            share = 100.0 * self._record.highest
            return (
                f"errors: {self._sides.candidate} {share_in_words(errors, requests)}"
                f"{self._since()}, where {self._before()} would have had {share:.2g} % at most;"
                f" {numbers}"
            )
        if test.name == "4xx":
            return f"{self._counts_in_words('4xx', *self._seen_refused)}; {numbers}"
        shown = self._latency.in_words(self._sides)
        return f"{test.name}: {shown}; {numbers}" if shown else f"{test.name}: {numbers}"

    # ---- over a restart ----

    def save(self) -> dict[str, Any]:
        """Plain values for JSON; the block and half minute that are open are not kept."""
        return {
            "format": FORMAT,
            "errors": self._errors.save(),
            "refused": self._refused.save(),
            "passes": self._passes.save(),
            "latency": self._latency.save(),
            "guards": self._guards.save(),
            "credits": [each.save() for each in self._credits()],
            "dispersions": [self._dispersion, self._refused_dispersion],
            "has_many_clients": self._has_many_clients,
            "seen": self._seen,
            "seen_refused": self._seen_refused,
            "credited": self._credited,
            "warm_s": self._warm_s,
            "record": self._record.save() if self._record is not None else None,
        }

    @classmethod
    def restored(cls, saved: dict[str, Any], knobs: Knobs, sides: Sides | None = None) -> Judge:
        """A judge that goes on from what `save` gave; ValueError when it cannot be read."""
        judge = cls(knobs, sides)
        if saved.get("format") != FORMAT:
            raise ValueError(f"a judge's state of format {saved.get('format')}, expected {FORMAT}")
        try:
            judge._load(saved)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a judge's state: {error!r}") from error
        return judge

    def _load(self, saved: dict[str, Any]) -> None:
        self._errors.load(saved["errors"])
        self._refused.load(saved["refused"])
        self._passes.load(saved["passes"])
        self._latency.load(saved["latency"])
        self._guards.load(saved["guards"])
        for credit, own in zip(self._credits(), saved["credits"], strict=True):
            credit.load(own)
        self._dispersion, self._refused_dispersion = (float(each) for each in saved["dispersions"])
        self._has_many_clients = bool(saved["has_many_clients"])
        self._seen = [int(each) for each in saved["seen"]]
        # the state of a version before this one has none
        self._seen_refused = [int(each) for each in saved.get("seen_refused", (0, 0))]
        self._credited = float(saved["credited"])
        self._warm_s = float(saved["warm_s"])
        if saved["record"] is not None:
            self._record = AgainstRecord(self._knobs, 0.0)
            self._record.load(saved["record"])

    def _credits(self) -> tuple[Credit, Credit, Credit, Credit]:
        return (
            self._credit,
            self._active_credit,
            self._refused_credit,
            self._active_refused_credit,
        )


def _empty() -> dict[str, float]:
    """Sums over a block or a half minute; errors and 4xx credited, `raw` errors as they were."""
    return dict.fromkeys(
        (
            "requests",
            "errors",
            "raw",
            "refused",
            "active_requests",
            "active_errors",
            "active_refused",
        ),
        0.0,
    )


def _excess(
    sums: dict[str, float], what: str, ratios: tuple[float, ...], factor: float, slack: float
) -> list[float]:
    active = "active_errors" if what == "raw" else f"active_{what}"
    return [
        evidence.of_excess(
            ratio,
            sums[what],
            sums["requests"],
            sums[active],
            sums["active_requests"],
            factor,
            slack,
        )
        for ratio in ratios
    ]
