"""Every module opens with a sentence on its responsibility."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    path
    for folder in ("proxy", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.stat().st_size
]


@pytest.mark.parametrize("path", MODULES, ids=[str(each.relative_to(ROOT)) for each in MODULES])
def test_a_module_opens_with_a_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "no docstring"
    first = docstring.partition("\n\n")[0]
    assert first.endswith(".") or "Usage:" in first, first
    assert len(first) <= 220, "that is no sentence, it is a paragraph"
