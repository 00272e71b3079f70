"""The files for systemd, Kubernetes and containers fit the program they start."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import __version__
from proxy.cli.main import VERBS
from proxy.control.config.load import load_text
from proxy.control.config.values import duration
from proxy.process import workforce
from tests.e2e.stage import Stage

ENVIRON = {"TURNOUT_ADMIN_TOKEN": "all", "TURNOUT_SECRET": "salt"}
DEFAULT_GRACE_S = 30


@pytest.fixture(scope="module")
def unit(root: Path) -> str:
    return (root / "deploy/turnout.service").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def manifests(root: Path) -> dict[str, Any]:
    text = (root / "deploy/kubernetes.yaml").read_text(encoding="utf-8")
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def container(manifests: dict[str, Any]) -> Any:
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> str:
    return (root / "Dockerfile").read_text(encoding="utf-8")


def test_the_unit_starts_and_reloads_by_verbs_that_exist(unit: str) -> None:
    assert re.findall(r"bin/turnout (\w+)", unit) == ["run", "check"]
    assert {"run", "check"} <= VERBS.keys()
    assert "Type=notify" in unit


def test_the_unit_asks_the_supervisor_alone_and_waits_longer_than_it_needs(unit: str) -> None:
    assert "KillMode=mixed" in unit
    stop_s = int(unit.partition("TimeoutStopSec=")[2].split()[0])
    assert stop_s > DEFAULT_GRACE_S + workforce.KILL_AFTER_S


def test_systemd_is_told_when_traffic_is_served_and_when_the_end_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        try:
            blue = stage.origin("blue")
            turnout = stage.turnout(blue, blue, start=False)
            turnout.launch()
            assert notified.recv(64) == b"READY=1"
            assert turnout.ask("GET", "/readyz").status == 200
            turnout.signal(signal.SIGTERM)
            assert notified.recv(64) == b"STOPPING=1"
            assert turnout.wait(60) == 0
        finally:
            stage.end()


def test_the_config_map_is_a_valid_configuration(manifests: dict[str, Any]) -> None:
    text = manifests["ConfigMap"]["data"]["turnout.yaml"]
    loaded = load_text(text, "turnout.yaml", ENVIRON)
    assert loaded.config.admin.token is not None


def test_the_probes_ask_paths_that_need_no_token_on_the_ports_that_are_bound(
    manifests: dict[str, Any], container: Any
) -> None:
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    config = yaml.safe_load(manifests["ConfigMap"]["data"]["turnout.yaml"])
    assert config["admin"]["bind"].endswith(f":{ports['admin']}")
    assert config["listeners"][0]["bind"].endswith(f":{ports['http']}")
    probes = [container[each]["httpGet"] for each in ("livenessProbe", "readinessProbe")]
    assert [each["path"] for each in probes] == ["/healthz", "/readyz"]
    assert {each["port"] for each in probes} == {"admin"}


def test_the_pod_gets_more_time_than_the_proxy_takes_to_stop(
    manifests: dict[str, Any], container: Any
) -> None:
    config = yaml.safe_load(manifests["ConfigMap"]["data"]["turnout.yaml"])
    grace_s = manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    first_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert grace_s > duration(config["shutdown_timeout"]) + first_s + workforce.KILL_AFTER_S


def test_the_image_is_of_this_version(container: Any) -> None:
    assert container["image"] == f"turnout:{__version__}"


def test_the_container_copies_what_is_there_and_runs_as_nobody_special(
    root: Path, dockerfile: str
) -> None:
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (root / source).exists(), source
    assert "USER 10001" in dockerfile
    assert "STOPSIGNAL SIGTERM" in dockerfile
    assert "EXPOSE 8080 9900" in dockerfile


def test_the_container_checks_its_health_with_python_that_compiles(dockerfile: str) -> None:
    (check,) = re.findall(r'\["python", "-c", "(.*)"\]', dockerfile)
    compile(check, "HEALTHCHECK", "exec")
    assert "9900/healthz" in check
