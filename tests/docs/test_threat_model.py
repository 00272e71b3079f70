"""The threat model names tests for what it promises: they are there, and so is a row's other half."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_every_test_that_is_named_exists(file: str, function: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not function or function in names
    assert function or any(name.startswith("test_") or name == "run" for name in names)


def test_every_promise_has_a_test() -> None:
    rows = re.findall(r"^\| (?!---|we promise|who)(.*) \|$", PAGE, re.MULTILINE)
    promises = [row for row in rows if "| everything" not in row and "`tests/" in row]
    assert len(promises) > 25
    sections = PAGE.split("\n## ")
    for section in sections:
        if "| we promise |" in section:
            assert "**Not promised:**" in section, section[:40]
            table = section.partition("| we promise |")[2].partition("\n\n")[0]
            for row in table.splitlines()[2:]:
                assert "`tests/" in row, row


def test_every_target_of_the_fuzzer_keeps_a_promise_of_the_page() -> None:
    targets = {path.stem for path in (ROOT / "tests/fuzz/targets").glob("*.py")}
    named = {Path(file).stem for file, _ in NAMED if "/fuzz/targets/" in file}
    assert named == targets
