from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import Metric, parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from proxy import __version__, stats
from proxy.control import availability
from proxy.control.admin.metrics import FleetCollector, render
from proxy.control.guard.watch import Seen
from proxy.control.prober import CheckSettings, Result
from proxy.control.rollout.machine import Judged, Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import Declared, ServiceState
from proxy.model import Drain, Snapshot
from proxy.policy.health import Outcome
from proxy.policy.judge import Call, Counts, Test, Tick, Verdict

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin, Reply

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

BLUE, GREEN, ENDPOINTS, LISTENER, SERVICE_SLOT = 100, 400, 700, 800, 900
BLUE_ADDRESSES = ("127.0.0.1:9000", "127.0.0.1:9001")
DRAIN = Drain(since_s=1.0, requests_by_s=2.0, streams_by_s=3.0)


def samples(reply: Reply) -> Samples:
    assert reply.status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


async def scrape(admin: Admin) -> Samples:
    return samples(await admin.get("/metrics"))


def value(found: Samples, name: str, **labels: str) -> float:
    named = {key.rstrip("_"): value for key, value in labels.items()}
    return found[name, frozenset(named.items())]


def blue(found: Samples, name: str, **labels: str) -> float:
    return value(found, name, service="shop", pool="blue", **labels)


async def test_the_text_format_is_the_default(admin: Admin) -> None:
    reply = await admin.get("/metrics")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE turnout_requests_total counter" in reply.text


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=1.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3",
        "Application/OpenMetrics-Text; version=nonsense",
    ],
)
async def test_openmetrics_is_given_to_who_accepts_it(admin: Admin, accept: str) -> None:
    admin.fleet.add(0)[BLUE + stats.P_DURATION_BINS + 9] = 4
    reply = await admin.get("/metrics", headers={"Accept": accept})
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert reply.text.endswith("# EOF\n")
    parse: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families
    families = list(parse(reply.text))
    assert {"turnout_requests", "turnout_request_duration_seconds", "turnout_build"} <= {
        family.name for family in families
    }


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/openmetrics-text;q=0", ""])
async def test_others_get_the_text_format(admin: Admin, accept: str) -> None:
    reply = await admin.get("/metrics", headers={"Accept": accept})
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")


async def test_every_name_of_the_contract_is_there(admin: Admin) -> None:
    admin.fleet.add(0)
    names = {name for name, _ in await scrape(admin)}
    assert names >= {
        "turnout_requests_total",
        "turnout_request_duration_seconds_bucket",
        "turnout_request_duration_seconds_sum",
        "turnout_request_duration_seconds_count",
        "turnout_upstream_failures_total",
        "turnout_retries_total",
        "turnout_weight",
        "turnout_endpoints",
        "turnout_in_flight",
        "turnout_drain_remaining",
        "turnout_drain_cut_total",
        "turnout_drain_closed_total",
        "turnout_config_revision",
        "turnout_config_last_reload_successful",
        "turnout_config_last_reload_success_timestamp_seconds",
        "turnout_connections",
        "turnout_connections_accepted_total",
        "turnout_connections_refused_total",
        "turnout_accept_pauses_total",
        "turnout_tls_certificate_expiry_timestamp_seconds",
        "turnout_worker_up",
        "turnout_build_info",
        "turnout_access_log_dropped_total",
        "turnout_log_lines_dropped_total",
        "turnout_dns_lookups_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    }


async def test_counters_are_summed_over_the_workers_by_kind(admin: Admin) -> None:
    for number in (0, 1):
        words = admin.fleet.add(number)
        words[BLUE + stats.P_ANSWERS] = 1
        words[BLUE + stats.P_ANSWERS + 2] = 20
        words[BLUE + stats.P_FAILURES + stats.FAILURE_KINDS.index("reset")] = 3
        words[BLUE + stats.P_CUT + stats.TUNNEL] = 4
        words[BLUE + stats.P_CLOSED + stats.STREAM] = 8
        words[BLUE + stats.P_CLOSED + stats.TUNNEL] = 9
        words[BLUE + stats.P_STALE] = 5
        words[GREEN + stats.P_PASSED_OVER] = 6
        words[GREEN + stats.P_WENT_ON] = 9
        words[SERVICE_SLOT + stats.S_RETRY_OUTCOMES + stats.RESCUED] = 11
        words[stats.W_LOG_DROPPED] = 7
        words[stats.W_EVENTS_DROPPED] = 8
        words[stats.W_LOOKUPS] = 9
        words[stats.W_LOOKUPS_FAILED] = 10
    found = await scrape(admin)
    assert blue(found, "turnout_requests_total", code_class="none") == 2
    assert blue(found, "turnout_requests_total", code_class="2xx") == 40
    assert blue(found, "turnout_requests_total", code_class="5xx") == 0
    assert blue(found, "turnout_upstream_failures_total", kind="reset") == 6
    assert blue(found, "turnout_drain_cut_total", class_="tunnel") == 8
    assert blue(found, "turnout_drain_closed_total", class_="stream") == 16
    assert blue(found, "turnout_drain_closed_total", class_="tunnel") == 18
    assert value(found, "turnout_retries_total", service="shop", outcome="stale_connection") == 10
    assert value(found, "turnout_retries_total", service="shop", outcome="passed_over") == 12
    assert value(found, "turnout_retries_total", service="shop", outcome="rescued") == 22
    assert value(found, "turnout_retries_total", service="shop", outcome="no_budget") == 0
    assert blue(found, "turnout_tried_again_total") == 0
    assert value(found, "turnout_tried_again_total", service="shop", pool="green") == 18
    assert value(found, "turnout_access_log_dropped_total") == 14
    assert value(found, "turnout_log_lines_dropped_total") == 16
    assert value(found, "turnout_dns_lookups_total", outcome="found") == 18
    assert value(found, "turnout_dns_lookups_total", outcome="failed") == 20


async def test_the_histogram_has_octaves_and_is_cumulative(admin: Admin) -> None:
    words = admin.fleet.add(0)
    durations = (0.0005, 0.0015, 0.003, 0.1, 30.0, 500.0)
    for seconds in durations:
        words[BLUE + stats.P_DURATION_BINS + stats.latency_bin(seconds)] += 1
    words[BLUE + stats.P_DURATION_US] = int(sum(durations) * 1e6)
    found = await scrape(admin)
    name = "turnout_request_duration_seconds"
    edges = [0.001 * 2**octave for octave in range(16)]
    for edge in edges:
        expected = sum(seconds <= edge for seconds in durations)
        assert blue(found, f"{name}_bucket", le=str(edge)) == expected
    assert blue(found, f"{name}_bucket", le="+Inf") == blue(found, f"{name}_count") == 6
    assert blue(found, f"{name}_sum") == pytest.approx(sum(durations))


async def test_gauges_show_what_is_in_force_now(admin: Admin) -> None:
    words = admin.fleet.add(0)
    words[BLUE + stats.P_IN_FLIGHT + stats.STREAM] = 3
    words[LISTENER + stats.L_IDLE] = 9
    words[LISTENER + stats.L_ENTERING] = 4
    words[LISTENER + stats.L_ACCEPTED] = 70
    words[LISTENER + stats.L_REFUSED + stats.REFUSALS.index("client_limit")] = 6
    words[LISTENER + stats.L_PAUSES] = 1
    found = await scrape(admin)
    assert blue(found, "turnout_weight") == 62.5
    assert blue(found, "turnout_in_flight", class_="stream") == 3
    assert blue(found, "turnout_drain_remaining") == 0
    here = {"listener": "127.0.0.1:8080"}
    assert value(found, "turnout_connections", **here, state="idle") == 9
    assert value(found, "turnout_connections", **here, state="entering") == 4
    assert value(found, "turnout_connections_accepted_total", **here) == 70
    assert value(found, "turnout_connections_refused_total", **here, reason="client_limit") == 6
    assert value(found, "turnout_connections_refused_total", **here, reason="limit") == 0
    assert value(found, "turnout_accept_pauses_total", **here) == 1
    site = {"listener": "0.0.0.0:443", "certificate": "tls/site.crt"}
    assert value(found, "turnout_tls_certificate_expiry_timestamp_seconds", **site) == 1.8e9
    assert value(found, "turnout_config_revision") == 7
    assert value(found, "turnout_build_info", version=__version__) == 1


async def test_endpoints_are_counted_by_what_can_be_done_with_them(admin: Admin) -> None:
    first, second = admin.fleet.add(0), admin.fleet.add(1)
    later = int(admin.clock.monotonic() * 1000) + 5_000
    unreachable = ENDPOINTS + stats.E_UNREACHABLE_MS
    first[unreachable] = second[unreachable] = later
    first[unreachable + stats.ENDPOINT_WORDS] = later  # only one worker passes this one over
    found = await scrape(admin)
    assert blue(found, "turnout_endpoints", state="available") == 1
    assert blue(found, "turnout_endpoints", state="unreachable") == 1
    admin.clock.advance(6)
    assert blue(await scrape(admin), "turnout_endpoints", state="available") == 2


async def test_ejected_endpoints_are_counted_as_such(admin: Admin) -> None:
    admin.fleet.add(0)
    admin.fleet.board.mark(ENDPOINTS, stats.EJECTED, on=True)
    admin.fleet.ejections["shop", "blue"] = 3
    found = await scrape(admin)
    assert blue(found, "turnout_endpoints", state="ejected") == 1
    assert blue(found, "turnout_endpoints", state="available") == 1
    assert blue(found, "turnout_ejections_total") == 3


async def test_requests_sent_in_panic_are_counted(admin: Admin) -> None:
    admin.fleet.add(0)[BLUE + stats.P_PANICKED] = 7
    assert blue(await scrape(admin), "turnout_panic_requests_total") == 7


async def test_a_drain_shows_what_it_still_waits_for(admin: Admin) -> None:
    words = admin.fleet.add(0)
    words[BLUE + stats.P_IN_FLIGHT] = 5
    words[BLUE + stats.P_IN_FLIGHT + stats.TUNNEL] = 1
    words[ENDPOINTS + stats.E_IN_FLIGHT] = 2
    admin.snapshot[0] = with_blue_draining(admin.snapshot[0], is_whole=False)
    found = await scrape(admin)
    assert blue(found, "turnout_drain_remaining") == 2
    assert blue(found, "turnout_endpoints", state="draining") == 1
    admin.snapshot[0] = with_blue_draining(admin.snapshot[0], is_whole=True)
    assert blue(await scrape(admin), "turnout_drain_remaining") == 6


def with_blue_draining(snapshot: Snapshot, *, is_whole: bool) -> Snapshot:
    shop = snapshot.services[0]
    pool, *others = shop.pools
    first, *rest = pool.endpoints
    if is_whole:
        pool = replace(pool, drain=DRAIN)
    else:
        pool = replace(pool, endpoints=(replace(first, drain=DRAIN), *rest))
    return replace(snapshot, services=(replace(shop, pools=(pool, *others)),))


async def test_counters_of_a_removed_pool_stay(admin: Admin) -> None:
    words = admin.fleet.add(0)
    words[GREEN + stats.P_ANSWERS + 2] = 11
    await scrape(admin)
    shop = admin.snapshot[0].services[0]
    only_blue = replace(shop, pools=shop.pools[:1])
    admin.snapshot[0] = replace(admin.snapshot[0], services=(only_blue,))
    words[GREEN + stats.P_ANSWERS + 2] = 12
    found = await scrape(admin)
    green = {"service": "shop", "pool": "green"}
    assert value(found, "turnout_requests_total", code_class="2xx", **green) == 12
    with pytest.raises(KeyError):
        value(found, "turnout_weight", **green)
    admin.snapshot[0] = replace(admin.snapshot[0], services=())
    assert value(await scrape(admin), "turnout_requests_total", code_class="2xx", **green) == 12


async def test_counters_never_fall_when_a_worker_is_replaced(admin: Admin) -> None:
    words = admin.fleet.add(0)
    words[BLUE + stats.P_ANSWERS + 2] = 50
    words[BLUE + stats.P_DURATION_BINS] = 50
    words[BLUE + stats.P_IN_FLIGHT] = 4
    before = await scrape(admin)
    admin.fleet.retire(0)
    between = await scrape(admin)
    admin.fleet.add(0, pid=2)[BLUE + stats.P_ANSWERS + 2] = 1
    after = await scrape(admin)
    for earlier, later in ((before, between), (between, after)):
        for key, count in earlier.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                assert later[key] >= count, key
    assert blue(after, "turnout_requests_total", code_class="2xx") == 51
    assert blue(between, "turnout_in_flight", class_="request") == 0


async def test_a_worker_that_is_down_is_shown(admin: Admin) -> None:
    admin.fleet.add(0)
    admin.fleet.add(1)
    admin.fleet.states[1] = replace(admin.fleet.states[1], up=False)
    found = await scrape(admin)
    assert value(found, "turnout_worker_up", worker="0") == 1
    assert value(found, "turnout_worker_up", worker="1") == 0


async def test_the_last_reload_is_told(admin: Admin) -> None:
    name = "turnout_config_last_reload_success"
    found = await scrape(admin)
    assert value(found, f"{name}ful") == 1
    assert value(found, f"{name}_timestamp_seconds") == 1767323045
    admin.desk.invalid = ["turnout.yaml:1:1: wrong"]
    assert value(await scrape(admin), f"{name}ful") == 0


async def test_the_supervisor_reports_its_own_use_of_the_machine(admin: Admin) -> None:
    found = await scrape(admin)
    assert value(found, "process_resident_memory_bytes", process="supervisor") > 1_000_000
    assert value(found, "process_cpu_seconds_total", process="supervisor") > 0


async def test_names_with_quotes_and_newlines_survive(admin: Admin) -> None:
    shop = replace(admin.snapshot[0].services[0], name='a"b\n\\c')
    admin.snapshot[0] = replace(admin.snapshot[0], services=(shop,))
    found = await scrape(admin)
    assert value(found, "turnout_weight", service='a"b\n\\c', pool="blue") == 62.5


async def test_what_is_held_is_a_gauge_and_its_ends_are_counted(admin: Admin) -> None:
    first, second = admin.fleet.add(0), admin.fleet.add(1)
    for words in (first, second):
        words[SERVICE_SLOT + stats.S_HELD] = 4
        words[SERVICE_SLOT + stats.S_HELD_ENDS + stats.HELD_RELEASED] = 20
        words[SERVICE_SLOT + stats.S_HELD_ENDS + stats.HELD_TIMED_OUT] = 3
        words[SERVICE_SLOT + stats.S_HELD_ENDS + stats.HELD_REFUSED] = 2
        words[SERVICE_SLOT + stats.S_HELD_ENDS + stats.HELD_CLIENT_GONE] = 1
    found = await scrape(admin)
    assert value(found, "turnout_held_requests", service="shop") == 8
    ends = {
        outcome: value(found, "turnout_held_total", service="shop", outcome=outcome)
        for outcome in stats.HELD_ENDS
    }
    assert ends == {"released": 40, "timed_out": 6, "refused": 4, "client_gone": 2}
    admin.snapshot[0] = replace(admin.snapshot[0], services=())
    found = await scrape(admin)
    assert value(found, "turnout_held_total", service="shop", outcome="released") == 40
    assert not [name for name, _ in found if name == "turnout_held_requests"]


async def test_what_keeps_traffic_from_an_endpoint_is_counted_by_kind(admin: Admin) -> None:
    admin.fleet.add(0)
    first, second = (each.slot for each in admin.snapshot[0].services[0].pools[0].endpoints)
    settings = CheckSettings()
    listed = {("shop", "blue", each): settings for each in BLUE_ADDRESSES}
    admin.fleet.health.follow(listed)
    admin.fleet.board.mark(first, stats.DOWN, on=True)
    admin.fleet.board.mark(second, stats.EJECTED | stats.ASKS_TO_DRAIN, on=True)
    found = await scrape(admin)
    states = {each: blue(found, "turnout_endpoints", state=each) for each in availability.STATES}
    assert {each: count for each, count in states.items() if count} == {"down": 1, "ejected": 1}


async def test_checks_are_counted_by_their_result(admin: Admin) -> None:
    key = ("shop", "blue", BLUE_ADDRESSES[0])
    admin.fleet.health.follow({key: CheckSettings()})
    for is_pass in (True, True, False):
        admin.fleet.health.note(key, Result(outcome=Outcome(is_pass=is_pass), words=""))
    found = await scrape(admin)
    assert blue(found, "turnout_health_checks_total", result="pass") == 2
    assert blue(found, "turnout_health_checks_total", result="fail") == 1
    assert value(found, "turnout_health_checks_in_flight") == 3


async def test_calls_to_hooks_are_counted_by_outcome(admin: Admin) -> None:
    found = await scrape(admin)
    outcomes = {
        outcome: value(found, "turnout_hook_calls_total", service="shop", outcome=outcome)
        for outcome in ("delivered", "failed", "dropped")
    }
    assert outcomes == {"delivered": 4, "failed": 0, "dropped": 0}
    assert value(found, "turnout_hooks_pending") == 2


async def test_what_limits_refuse_is_counted_by_reason_and_what_waits_by_pool(
    admin: Admin,
) -> None:
    base = admin.snapshot[0]
    shop = replace(base.services[0], slot=900)
    admin.snapshot[0] = replace(base, services=(shop,))
    for number in (0, 1):
        words = admin.fleet.add(number)
        for index in range(len(stats.LIMITS)):
            words[900 + stats.S_LIMITED + index] = index + 1
        words[ENDPOINTS + stats.E_PENDING] = 3
        words[ENDPOINTS + stats.ENDPOINT_WORDS + stats.E_PENDING] = 4
    found = await scrape(admin)
    for index, reason in enumerate(stats.LIMITS):
        count = value(found, "turnout_limited_total", service="shop", reason=reason)
        assert count == 2 * (index + 1)
    assert blue(found, "turnout_pending_requests") == 14
    assert not any(name == "turnout_concurrency_limit" for name, _ in found)


async def test_the_counts_of_a_service_that_is_gone_do_not_vanish(admin: Admin) -> None:
    base = admin.snapshot[0]
    admin.snapshot[0] = replace(base, services=(replace(base.services[0], slot=900),))
    admin.fleet.add(0)[900 + stats.S_LIMITED] = 5
    await scrape(admin)
    admin.snapshot[0] = replace(base, services=())
    found = await scrape(admin)
    assert value(found, "turnout_limited_total", service="shop", reason="rate") == 5


async def test_a_rollout_shows_its_phase_step_evidence_and_what_was_turned_back(
    admin: Admin,
) -> None:
    plan = Plan(steps=(Step(weight=1_000), Step(weight=10_000)))
    rollout = Rollout(id=3, old="blue", candidate="green", plan=plan, phase=Phase.BAKING, step=1)
    file = Declared(active="blue", shares={"blue": 10_000}, fillings={})
    state = ServiceState(name="shop", file=file, rollout=rollout)
    tests = (Test(name="errors", evidence=1.25, bar=5.3),)
    seen = Seen(
        tick=Tick(at_s=0.0, length_s=1.0, active=Counts(), candidate=Counts()),
        verdict=Verdict(call=Call.CONTINUE, tests=tests),
        judged=Judged.CONTINUE,
        still_fails=False,
        old_is_no_better=False,
    )

    async def scraped(state: ServiceState) -> Samples:
        instruments = replace(
            admin.instruments,
            states=lambda: {"shop": state},
            guard=lambda _: seen,
            rollbacks=lambda: {("shop", "errors"): 2},
        )
        text, _ = render(FleetCollector(instruments, admin.clock), "")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in parser.text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    found = await scraped(state)
    assert value(found, "turnout_rollout_phase", service="shop", phase="baking") == 1
    assert value(found, "turnout_rollout_phase", service="shop", phase="steady") == 0
    assert value(found, "turnout_rollout_step", service="shop") == 2
    assert value(found, "turnout_guard_evidence", service="shop", test="errors") == 1.25
    assert value(found, "turnout_guard_evidence", service="shop", test="latency") == 0
    assert value(found, "turnout_rollbacks_total", service="shop", cause="errors") == 2
    assert value(found, "turnout_rollbacks_total", service="shop", cause="operator") == 0
    over = await scraped(replace(state, rollout=replace(rollout, phase=Phase.ROLLED_BACK)))
    assert value(over, "turnout_rollout_phase", service="shop", phase="rolled_back") == 1
    assert value(over, "turnout_rollout_step", service="shop") == 0
    assert value(over, "turnout_guard_evidence", service="shop", test="errors") == 0
