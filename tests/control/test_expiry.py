"""Until when certificates are valid, and who is told."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from proxy.clock import ManualClock
from proxy.control import expiry
from proxy.control.config.files import CertificateFacts, Files
from proxy.control.config.load import Loaded
from proxy.control.config.schema import Config

NOW = 1_700_000_000.0
DAY = 86400.0


def facts(not_after: float, not_before: float = NOW - DAY) -> CertificateFacts:
    return CertificateFacts(
        names=("shop.example",),
        not_before=not_before,
        not_after=not_after,
        fingerprint=f"{not_after:g}",
    )


def loaded(certificate: CertificateFacts) -> Loaded:
    pair = {"cert": "shop.crt", "key": "shop.key"}
    config = Config.model_validate(
        {
            "listeners": [
                {"bind": "127.0.0.1:8443", "tls": {"certificates": [pair]}},
                {"bind": "127.0.0.1:8080"},
            ],
            "services": {},
        }
    )
    files = Files(certificates={"shop.crt": certificate})
    return Loaded(config=config, path="t.yaml", sha256="", text="", files=files)


@pytest.mark.parametrize(
    ("not_before", "not_after", "state"),
    [
        (NOW - DAY, NOW + 15 * DAY, "valid"),
        (NOW - DAY, NOW + 14 * DAY, "expiring"),
        (NOW - DAY, NOW, "expired"),
        (NOW + 1, NOW + 90 * DAY, "not_yet_valid"),
    ],
)
def test_a_certificate_is_valid_between_its_dates(
    not_before: float, not_after: float, state: str
) -> None:
    assert expiry.state(facts(not_after, not_before), NOW) == state


def test_the_status_says_whom_it_is_for_and_until_when() -> None:
    assert expiry.view(loaded(facts(NOW + DAY)), NOW) == [
        {
            "listener": "127.0.0.1:8443",
            "certificate": "shop.crt",
            "names": ["shop.example"],
            "not_before": "2023-11-13T22:13:20.000Z",
            "not_after": "2023-11-15T22:13:20.000Z",
            "sha256": f"{NOW + DAY:g}",
            "state": "expiring",
        }
    ]


def test_a_warning_comes_once_a_day_until_the_certificate_is_renewed() -> None:
    clock = ManualClock(wall=NOW)
    now_loaded = [loaded(facts(NOW + 3 * DAY))]
    watch = expiry.ExpiryWatch(lambda: now_loaded[0], clock)
    with capture_logs() as logs:
        for _ in range(48):
            watch.look()
            clock.advance(3600)
    assert [each["event"] for each in logs] == ["certificate_expires_soon"] * 2
    assert logs[0]["certificate"] == "shop.crt"
    with capture_logs() as logs:
        clock.advance(2 * DAY)
        watch.look()
    assert [each["event"] for each in logs] == ["certificate_expired"]
    now_loaded[0] = loaded(facts(NOW + 90 * DAY))
    with capture_logs() as logs:
        clock.advance(DAY)
        watch.look()
    assert logs == []
