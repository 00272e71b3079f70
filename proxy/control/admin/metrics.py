"""The counters in Prometheus' words: read from shared memory at a scrape, rendered as text.

A scrape reads the supervisor's maps of the workers' memory; the workers notice nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from proxy import __version__, stats
from proxy.clock import Clock
from proxy.control import availability
from proxy.control.admin.process_usage import CpuLedger, processes, resident_bytes
from proxy.control.expiry import Shown
from proxy.control.fleet import WorkerState
from proxy.control.gauges import is_full
from proxy.control.guard.watch import Seen
from proxy.control.health import HealthBook
from proxy.control.hooks import OUTCOMES
from proxy.control.rollout.machine import Phase
from proxy.control.state import ServiceState
from proxy.model import Endpoint, Limits, Pool, Snapshot
from proxy.stats import Board, Totals

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

CODE_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
TESTS = ("errors", "latency", "4xx", "record")
"""The judge's, as its verdict names them."""
CAUSES = ("down", "rate", *TESTS, "starved", "operator")
"""Of rollbacks: the guards, the tests, too few requests, a person."""
CONNECTION_STATES = {
    "active": stats.L_ACTIVE,
    "idle": stats.L_IDLE,
    "tunnel": stats.L_TUNNEL,
    "entering": stats.L_ENTERING,
}

POOL = ("service", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What a scrape reads."""

    snapshot: Callable[[], Snapshot]
    """The one in force."""
    totals: Totals
    workers: Callable[[], Sequence[WorkerState]]
    config: Callable[[], Mapping[str, Any]]
    """The part `config` of the status: `loaded_at` and `last_error`."""
    board: Board
    health: HealthBook
    checks_in_flight: Callable[[], int]
    ejections: Callable[[], Mapping[tuple[str, str], int]]
    """How many there have been, by service and pool."""
    states: Callable[[], Mapping[str, ServiceState]] = dict
    """Of every service, for its rollout."""
    guard: Callable[[str], Seen | None] = lambda _: None
    """What the guard saw last of a service."""
    rollbacks: Callable[[], Mapping[tuple[str, str], int]] = dict
    """By service and cause, since the start."""
    hook_calls: Callable[[], Mapping[tuple[str, str], int]] = dict
    """How many there have been, by service and outcome."""
    hooks_pending: Callable[[], int] = lambda: 0
    own_lines_dropped: Callable[[], int] = lambda: 0
    """Lines of events that the supervisor could not write."""
    concurrency_limit: Callable[[Pool], int | None] = lambda _: None
    """What a pool can take, where that is being found."""
    certificates: Callable[[], Sequence[Shown]] = list
    """What the listeners show."""


def render(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Return the text and its content type: OpenMetrics where `accept` names it, else 0.0.4."""
    if _accepts_openmetrics(accept):
        encode = partial(openmetrics.generate_latest, version="1.0.0")
        return encode(collector), OPENMETRICS_TYPE
    return generate_latest(collector), TEXT_TYPE


def _accepts_openmetrics(accept: str) -> bool:
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind == "application/openmetrics-text":
            return not {"q=0", "q=0.0"} & set(parameters)
    return False


class FleetCollector(Collector):
    """Reads all metrics from the instruments.

    It remembers the counters' places of every pool it has ever seen, so that the counters
    of a pool that was removed neither vanish nor fall; gauges show what is there now.
    """

    def __init__(self, instruments: Instruments, clock: Clock) -> None:
        self._instruments = instruments
        self._clock = clock
        self._seen: dict[tuple[str, str], int] = {}
        self._seen_services: dict[str, int] = {}
        self._limits: dict[str, Limits] = {}
        self._cpu = CpuLedger()

    def collect(self) -> Iterator[Metric]:
        snapshot = self._instruments.snapshot()
        pools = list(_pools(snapshot))
        self._seen.update({(service, pool.name): pool.slot for service, pool in pools})
        self._limits = {each.name: each.limits for each in snapshot.services}
        self._seen_services.update({each.name: each.slot for each in snapshot.services})
        yield from self._traffic()
        yield self._limited()
        yield from self._limits_now(pools)
        yield from self._holds(snapshot)
        yield from self._pools_now(pools)
        yield from self._checks()
        yield from self._hooks()
        yield from self._rollouts()
        yield from self._connections(snapshot)
        yield from self._configuration(snapshot)
        yield from self._fleet()

    def _traffic(self) -> Iterator[Metric]:
        totals = self._instruments.totals
        areas = {
            pool: totals.counters(slot, stats.POOL_WORDS)
            for pool, slot in sorted(self._seen.items())
        }
        yield _by_kind(
            CounterMetricFamily(
                "turnout_requests",
                "Requests by the first digit of their answer's status; none: left unanswered.",
                labels=(*POOL, "code_class"),
            ),
            areas,
            stats.P_ANSWERS,
            CODE_CLASSES,
        )
        yield _durations(areas)
        yield _by_kind(
            CounterMetricFamily(
                "turnout_upstream_failures",
                "Attempts that failed on the side of an endpoint.",
                labels=(*POOL, "kind"),
            ),
            areas,
            stats.P_FAILURES,
            stats.FAILURE_KINDS,
        )
        yield self._retries(areas)
        tried_again = CounterMetricFamily(
            "turnout_tried_again",
            "Requests whose first attempt failed in the pool and that went on, there or elsewhere.",
            labels=POOL,
        )
        for labels, words in areas.items():
            tried_again.add_metric(labels, words[stats.P_WENT_ON])
        yield tried_again
        yield _panicked(areas)
        yield self._ejections()
        yield _by_kind(
            CounterMetricFamily(
                "turnout_drain_cut",
                "Exchanges cut at the deadline of a drain.",
                labels=(*POOL, "class"),
            ),
            areas,
            stats.P_CUT,
            stats.CLASSES,
        )
        yield _by_kind(
            CounterMetricFamily(
                "turnout_drain_closed",
                "Event streams and WebSockets ended gently at the deadline of a drain.",
                labels=(*POOL, "class"),
            ),
            areas,
            stats.P_CLOSED + stats.STREAM,
            stats.CLASSES[stats.STREAM :],
        )

    def _holds(self, snapshot: Snapshot) -> Iterator[Metric]:
        totals = self._instruments.totals
        held = GaugeMetricFamily(
            "turnout_held_requests",
            "Requests that wait because their service is on hold.",
            labels=("service",),
        )
        for service in snapshot.services:
            held.add_metric((service.name,), totals.gauge(service.slot + stats.S_HELD))
        ends = CounterMetricFamily(
            "turnout_held",
            "Requests that had to wait because their service was on hold, by what became of them.",
            labels=("service", "outcome"),
        )
        for name, slot in sorted(self._seen_services.items()):
            counts = totals.counters(slot + stats.S_HELD_ENDS, len(stats.HELD_ENDS))
            for outcome, count in zip(stats.HELD_ENDS, counts, strict=True):
                ends.add_metric((name, outcome), count)
        yield from (held, ends)

    def _ejections(self) -> Metric:
        family = CounterMetricFamily(
            "turnout_ejections", "Endpoints ejected for their outcomes.", labels=POOL
        )
        for labels, count in sorted(self._instruments.ejections().items()):
            family.add_metric(labels, count)
        return family

    def _retries(self, areas: _Areas) -> Metric:
        family = CounterMetricFamily(
            "turnout_retries",
            "Requests that went on: past an endpoint that could not be reached, off a kept"
            " connection that had died, or tried again after a failure; and those that could not.",
            labels=("service", "outcome"),
        )
        for service, slot in sorted(self._seen_services.items()):
            own = [words for (name, _), words in areas.items() if name == service]
            for outcome, word in (
                ("passed_over", stats.P_PASSED_OVER),
                ("stale_connection", stats.P_STALE),
            ):
                family.add_metric((service, outcome), sum(words[word] for words in own))
            counts = self._instruments.totals.counters(
                slot + stats.S_RETRY_OUTCOMES, len(stats.RETRY_OUTCOMES)
            )
            for outcome, count in zip(stats.RETRY_OUTCOMES, counts, strict=True):
                family.add_metric((service, outcome), count)
        return family

    def _limited(self) -> Metric:
        family = CounterMetricFamily(
            "turnout_limited",
            "Requests refused by a limit, and answered with 429 or 503.",
            labels=("service", "reason"),
        )
        for service, slot in sorted(self._seen_services.items()):
            counts = self._instruments.totals.counters(slot + stats.S_LIMITED, len(stats.LIMITS))
            for reason, count in zip(stats.LIMITS, counts, strict=True):
                family.add_metric((service, reason), count)
        return family

    def _limits_now(self, pools: Iterable[tuple[str, Pool]]) -> Iterator[Metric]:
        pending = GaugeMetricFamily(
            "turnout_pending_requests",
            "Requests that wait for a connection to an endpoint.",
            labels=POOL,
        )
        found = GaugeMetricFamily(
            "turnout_concurrency_limit",
            "Requests in flight that the pool can take, where `adaptive` finds that.",
            labels=POOL,
        )
        for service, pool in pools:
            waiting = (each.slot + stats.E_PENDING for each in pool.endpoints)
            pending.add_metric(
                (service, pool.name), sum(map(self._instruments.totals.gauge, waiting))
            )
            limit = self._instruments.concurrency_limit(pool)
            if limit is not None:
                found.add_metric((service, pool.name), limit)
        yield from (pending, found)

    def _pools_now(self, pools: Iterable[tuple[str, Pool]]) -> Iterator[Metric]:
        weight = GaugeMetricFamily(
            "turnout_weight", "Share of the service's new traffic, in percent.", labels=POOL
        )
        endpoints = GaugeMetricFamily(
            "turnout_endpoints",
            "Endpoints by state: what keeps traffic away, or that nothing does.",
            labels=(*POOL, "state"),
        )
        in_flight = GaugeMetricFamily(
            "turnout_in_flight", "Exchanges in flight by class.", labels=(*POOL, "class")
        )
        remaining = GaugeMetricFamily(
            "turnout_drain_remaining",
            "Exchanges that a drain of the pool or of its endpoints still waits for.",
            labels=POOL,
        )
        for service, pool in pools:
            labels = (service, pool.name)
            weight.add_metric(labels, pool.weight / 100)
            states = [self._state(service, pool, endpoint) for endpoint in pool.endpoints]
            for state in availability.STATES:
                endpoints.add_metric((*labels, state), states.count(state))
            for kind, count in zip(stats.CLASSES, self._in_flight(pool), strict=True):
                in_flight.add_metric((*labels, kind), count)
            remaining.add_metric(labels, self._remaining(pool))
        yield from (weight, endpoints, in_flight, remaining)

    def _state(self, service: str, pool: Pool, endpoint: Endpoint) -> str:
        given = self._instruments
        until = given.totals.each(endpoint.slot + stats.E_UNREACHABLE_MS).values()
        now_ms = self._clock.monotonic() * 1000
        return availability.facts(
            given.board.state(endpoint.slot),
            has_checks=given.health.get((service, pool.name, endpoint.address)) is not None,
            draining=endpoint.drain is not None,
            pool_draining=False,  # its weight says it already
            reachable=any(ms <= now_ms for ms in until),
            full=is_full(endpoint, self._limits[service], given.totals),
        ).state

    def _in_flight(self, pool: Pool) -> list[int]:
        return self._instruments.totals.gauges(pool.slot + stats.P_IN_FLIGHT, len(stats.CLASSES))

    def _remaining(self, pool: Pool) -> int:
        if pool.drain is not None:
            return sum(self._in_flight(pool))
        draining = (endpoint for endpoint in pool.endpoints if endpoint.drain is not None)
        gauge = self._instruments.totals.gauge
        return sum(gauge(endpoint.slot + stats.E_IN_FLIGHT) for endpoint in draining)

    def _checks(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "turnout_health_checks", "Active checks that were made.", labels=(*POOL, "result")
        )
        for labels, counts in sorted(self._instruments.health.counts.items()):
            for result, count in zip(("pass", "fail"), counts, strict=True):
                family.add_metric((*labels, result), count)
        yield family
        yield GaugeMetricFamily(
            "turnout_health_checks_in_flight",
            "Active checks that wait for an answer.",
            self._instruments.checks_in_flight(),
        )

    def _rollouts(self) -> Iterator[Metric]:
        phase = GaugeMetricFamily(
            "turnout_rollout_phase",
            "The phase of a service's last rollout: 1 for the one it is in.",
            labels=("service", "phase"),
        )
        step = GaugeMetricFamily(
            "turnout_rollout_step", "Its step, from 1; 0: none.", labels=("service",)
        )
        evidence = GaugeMetricFamily(
            "turnout_guard_evidence",
            "Evidence against the candidate in nats, by test; the bar is in the API.",
            labels=("service", "test"),
        )
        for name, state in sorted(self._instruments.states().items()):
            rollout = state.rollout
            here = rollout.phase if rollout is not None else Phase.STEADY
            for each in Phase:
                phase.add_metric((name, each.value), int(each is here))
            under_way = state.rolling is not None and here is not Phase.WARMING
            step.add_metric((name,), rollout.step + 1 if rollout and under_way else 0)
            seen = self._instruments.guard(name) if under_way else None
            found = {test.name: test.evidence for test in seen.verdict.tests} if seen else {}
            for test in TESTS:
                evidence.add_metric((name, test), found.get(test, 0.0))
        rollbacks = CounterMetricFamily(
            "turnout_rollbacks",
            "Rollbacks by cause: a test or guard of the judge, starved, or operator.",
            labels=("service", "cause"),
        )
        counts = self._instruments.rollbacks()
        for service in sorted(self._seen_services):
            for cause in CAUSES:
                rollbacks.add_metric((service, cause), counts.get((service, cause), 0))
        yield from (phase, step, evidence, rollbacks)

    def _hooks(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "turnout_hook_calls",
            "Calls that tell of a rollout's moves.",
            labels=("service", "outcome"),
        )
        calls = self._instruments.hook_calls()
        for service in sorted(self._seen_services):
            for outcome in OUTCOMES:
                family.add_metric((service, outcome), calls.get((service, outcome), 0))
        yield family
        yield GaugeMetricFamily(
            "turnout_hooks_pending",
            "Calls to hooks that wait or are under way.",
            self._instruments.hooks_pending(),
        )

    def _connections(self, snapshot: Snapshot) -> Iterator[Metric]:
        totals = self._instruments.totals
        connections = GaugeMetricFamily(
            "turnout_connections",
            "Client connections: with an exchange, waiting for a request, tunnelling, "
            "in a PROXY header or a TLS handshake.",
            labels=("listener", "state"),
        )
        accepted = CounterMetricFamily(
            "turnout_connections_accepted", "Client connections let in.", labels=("listener",)
        )
        refused = CounterMetricFamily(
            "turnout_connections_refused",
            "Client connections refused, by the reason.",
            labels=("listener", "reason"),
        )
        pauses = CounterMetricFamily(
            "turnout_accept_pauses",
            "How often accepting stood still because no descriptor was left.",
            labels=("listener",),
        )
        for listener in snapshot.listeners:
            bind, slot = listener.bind, listener.slot
            for state, word in CONNECTION_STATES.items():
                connections.add_metric((bind, state), totals.gauge(slot + word))
            accepted.add_metric((bind,), totals.counter(slot + stats.L_ACCEPTED))
            for number, reason in enumerate(stats.REFUSALS):
                count = totals.counter(slot + stats.L_REFUSED + number)
                refused.add_metric((bind, reason), count)
            pauses.add_metric((bind,), totals.counter(slot + stats.L_PAUSES))
        yield from (connections, accepted, refused, pauses)
        expiry = GaugeMetricFamily(
            "turnout_tls_certificate_expiry_timestamp_seconds",
            "When the certificate ends, in seconds since the epoch.",
            labels=("listener", "certificate"),
        )
        ends = {
            (each.listener, each.file): each.facts.not_after
            for each in self._instruments.certificates()
        }
        for labels, not_after in ends.items():  # one may be named twice
            expiry.add_metric(labels, not_after)
        yield expiry

    def _configuration(self, snapshot: Snapshot) -> Iterator[Metric]:
        config = self._instruments.config()
        yield GaugeMetricFamily(
            "turnout_config_revision", "Revision of the snapshot in force.", snapshot.revision
        )
        yield GaugeMetricFamily(
            "turnout_config_last_reload_successful",
            "Whether the configuration's file, as it was last read, was valid and applied.",
            0 if config.get("last_error") else 1,
        )
        yield GaugeMetricFamily(
            "turnout_config_last_reload_success_timestamp_seconds",
            "When a configuration was last loaded, in seconds since the epoch.",
            _wall_seconds(config.get("loaded_at")),
        )

    def _fleet(self) -> Iterator[Metric]:
        workers = self._instruments.workers()
        up = GaugeMetricFamily(
            "turnout_worker_up", "Whether the worker process of a slot serves.", labels=("worker",)
        )
        for worker in workers:
            up.add_metric((str(worker.slot),), int(worker.up))
        yield up
        yield CounterMetricFamily(
            "turnout_access_log_dropped",
            "Lines of the access log given up because they could not be written in time.",
            self._instruments.totals.counter(stats.W_LOG_DROPPED),
        )
        yield CounterMetricFamily(
            "turnout_log_lines_dropped",
            "Events given up because nobody read them in time, of supervisor and workers.",
            self._instruments.totals.counter(stats.W_EVENTS_DROPPED)
            + self._instruments.own_lines_dropped(),
        )
        yield self._lookups()
        yield InfoMetricFamily("turnout_build", "The program.", {"version": __version__})
        yield from self._processes(workers)

    def _lookups(self) -> Metric:
        lookups = CounterMetricFamily(
            "turnout_dns_lookups",
            "Lookups of endpoints' names, by each worker for itself.",
            labels=("outcome",),
        )
        counter = self._instruments.totals.counter
        lookups.add_metric(("found",), counter(stats.W_LOOKUPS))
        lookups.add_metric(("failed",), counter(stats.W_LOOKUPS_FAILED))
        return lookups

    def _processes(self, workers: Sequence[WorkerState]) -> Iterator[Metric]:
        cpu = CounterMetricFamily(
            "process_cpu_seconds",
            "User and system CPU time; of a worker's slot, over all its processes.",
            labels=("process",),
        )
        memory = GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory.", labels=("process",)
        )
        for name, pid in processes(workers):
            cpu.add_metric((name,), self._cpu.seconds(name, pid))
            if pid:
                memory.add_metric((name,), resident_bytes(pid))
        yield from (cpu, memory)


_Areas = Mapping[tuple[str, str], Sequence[int]]
"""The counters of every pool ever seen, by service and pool."""


def _pools(snapshot: Snapshot) -> Iterator[tuple[str, Pool]]:
    for service in snapshot.services:
        for pool in service.pools:
            yield service.name, pool


def _by_kind(
    family: CounterMetricFamily, areas: _Areas, first: int, kinds: Sequence[str]
) -> CounterMetricFamily:
    """Fill in one counter for each of `kinds`, from consecutive words."""
    for labels, words in areas.items():
        for offset, kind in enumerate(kinds):
            family.add_metric((*labels, kind), words[first + offset])
    return family


def _panicked(areas: _Areas) -> Metric:
    family = CounterMetricFamily(
        "turnout_panic_requests",
        "Requests sent to endpoints that are down or ejected, as nothing else was left.",
        labels=POOL,
    )
    for labels, words in areas.items():
        family.add_metric(labels, words[stats.P_PANICKED])
    return family


def _durations(areas: _Areas) -> Metric:
    family = HistogramMetricFamily(
        "turnout_request_duration_seconds",
        "From the request's first byte to the last one of its answer.",
        labels=POOL,
    )
    for labels, words in areas.items():
        bins = words[stats.P_DURATION_BINS : stats.P_DURATION_BINS + stats.BINS]
        family.add_metric(labels, _buckets(bins), words[stats.P_DURATION_US] / 1e6)
    return family


def _buckets(bins: Sequence[int]) -> list[tuple[str, float]]:
    """Fold the bins to octaves, cumulative: 1 ms, 2 ms, 4 ms ... and the rest in +Inf."""
    edges = range(0, stats.BINS - 1, stats.BINS_PER_OCTAVE)
    found: list[tuple[str, float]] = []
    below, start = 0, 0
    for edge in edges:
        below += sum(bins[start : edge + 1])
        start = edge + 1
        found.append((str(stats.bin_upper_edge_s(edge)), below))
    return [*found, ("+Inf", below + sum(bins[start:]))]


def _wall_seconds(at: object) -> float:
    match at:
        case int() | float():
            return float(at)
        case str():
            return datetime.fromisoformat(at).timestamp()
        case _:
            return 0.0
