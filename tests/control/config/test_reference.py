from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.control.config import reference
from proxy.control.config.explain import fields_of, section_of
from proxy.control.config.reference import BROKEN, ROOT, schema_text
from proxy.control.config.schema import Config

Problems = Callable[..., list[str]]

DUE = "run `make docs`: it is generated from proxy/control/config/schema.py"
ENVIRON = {"TURNOUT_ADMIN_TOKEN": "all", "TURNOUT_READ_TOKEN": "look"}
EXAMPLES = [
    block
    for block in re.findall(r"```yaml\n(.*?)```", reference.reference(), re.DOTALL)
    if block != BROKEN
]


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == reference.reference(), DUE


def test_the_json_schema_is_up_to_date() -> None:
    assert (ROOT / "config/schema.json").read_text() == schema_text(), DUE


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_valid_in_a_whole_file(
    example: str, problems: Problems, minimal: str
) -> None:
    whole: dict[str, Any] = {**yaml.safe_load(minimal), **yaml.safe_load(example)}
    assert problems(yaml.safe_dump(whole), environ=ENVIRON) == []


def test_the_reference_says_every_key_and_nearly_every_section_has_an_example() -> None:
    text = reference.reference()
    for key, field in fields_of(Config).items():
        assert f"| `{key}` | " in text
        inner = section_of(field)
        if inner and key not in {"defaults", "services"}:
            assert f"## `{key}{inner[0]}`" in text
    assert len(EXAMPLES) == len(reference.EXAMPLES)


def test_the_errors_in_the_reference_are_those_of_the_program(problems: Problems) -> None:
    for problem in problems(BROKEN):
        assert problem.replace("t.yaml", "shop.yaml") in reference.reference()


def test_the_module_writes_both_files(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "config").mkdir()
    command = [sys.executable, "-m", "proxy.control.config.reference", str(tmp_path)]
    subprocess.run(command, check=True)
    assert (tmp_path / "config/schema.json").read_text() == schema_text()
    assert (tmp_path / "docs/configuration.md").read_text() == reference.reference()
