"""What operations.md says in numbers and names is what the program has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.cli.exits import ExitCode
from proxy.control import store
from proxy.control.config.schema import Config
from proxy.dataplane import access_log, faults
from proxy.errors import Fault
from tests.e2e.stage import Stage
from tests.ports import free_port

METRIC = re.compile(r"^\| `((?:turnout|process)_[a-z_]+)(?:\{([a-z_,]+)\})?` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/operations.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_metrics_are_those_of_a_real_scrape_with_their_labels(
    page: str, tmp_path: Path
) -> None:
    said = {name: set(filter(None, labels.split(","))) for name, labels in METRIC.findall(page)}
    stage = Stage(tmp_path)
    try:
        pair = trustme.CA().issue_cert("shop.example.com")
        cert, key = str(tmp_path / "shop.crt"), str(tmp_path / "shop.key")
        pair.cert_chain_pems[0].write_to_path(cert)
        pair.private_key_pem.write_to_path(key)
        tls = {"certificates": [{"cert": cert, "key": key}]}
        turnout = stage.turnout(
            stage.origin("blue"),
            stage.origin("green"),
            top={"listeners": [{"bind": f"127.0.0.1:{free_port()}", "tls": tls}]},
            health={},
            limits={"adaptive": "on"},
        )
        shown: dict[str, set[str]] = {}
        for name, samples in turnout.metrics().items():
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            shown.setdefault(family, set()).update(*(labels for labels, _ in samples))
    finally:
        stage.end()
    assert said == {name: labels - {"le"} for name, labels in shown.items()}


def test_the_exit_codes_are_those_of_the_command(page: str) -> None:
    said = re.findall(r"^\| (\d+) \|", section(page, "Exit codes"), re.MULTILINE)
    assert [int(code) for code in said] == sorted(ExitCode)


def test_every_answer_of_our_own_is_in_the_table(page: str) -> None:
    table = section(page, "Timeouts, limits and answers")
    said = set()
    for statuses, tokens in re.findall(r"^\| (\d[\d, ]*) \| (.*?) \|", table, re.MULTILINE):
        said |= {
            (int(status), token)
            for status in statuses.split(",")
            for token in re.findall(r"`([a-z_]+)`", tokens)
        }
    ours = [each for each in vars(faults).values() if isinstance(each, Fault)]
    midway = {faults.ANSWER_STALLED, faults.ANSWER_CUT}  # there the answer has begun
    wanted = {(each.status, each.error) for each in ours if each not in midway}
    assert wanted <= said


def test_the_defaults_in_the_table_are_those_of_the_schema(page: str) -> None:
    plain: dict[str, Any] = {
        "listeners": [{"bind": "127.0.0.1:8080"}],
        "services": {"shop": {"routes": [{}], "pools": {"blue": {}}, "active": "blue"}},
    }
    config = Config.model_validate(plain)
    parts = {"listeners[].": config.listeners[0], "": config.services["shop"]}
    table = section(page, "Timeouts, limits and answers")
    rows = re.findall(r"^\| `(listeners\[\]\.|)(\w+)\.(\w+)` \| (\S+)", table, re.MULTILINE)
    assert len(rows) == 21
    for where, group, key, said in rows:
        shown = parts[where].model_dump(mode="json")[group][key]
        assert str(shown) == said, f"{where}{group}.{key}"


def test_the_fields_of_the_access_log_are_those_that_are_written(page: str) -> None:
    told = page.partition("- `json`: ")[2].partition(".\n")[0]
    source = Path(access_log.__file__).read_text(encoding="utf-8")
    record = source.partition("record = {")[2].partition("}")[0]
    assert re.findall(r"`(\w+)`", told) == re.findall(r'"(\w+)":', record)
    assert f"{access_log.MAX_WAITING:,}" in page


def test_the_store_is_what_is_said(page: str) -> None:
    assert f"`{store.FILE}`" in page
    assert f"{store.KEPT_DECISIONS:,} decisions" in page
