from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.process import tenancy


def test_a_directory_has_one_tenant_until_it_is_given_up(tmp_path: Path) -> None:
    state = str(tmp_path / "var" / "state")
    first = tenancy.take(state)
    assert first is not None
    with pytest.raises(OSError, match=f"{state} belongs to another running proxy"):
        tenancy.take(state)
    os.close(first)
    second = tenancy.take(state)
    assert second is not None
    os.close(second)


def test_a_killed_tenant_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import sys; from proxy.process import tenancy; tenancy.take(sys.argv[1]); print(); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as tenant:
        assert tenant.stdout
        tenant.stdout.readline()
        with pytest.raises(OSError, match="another running proxy"):
            tenancy.take(str(tmp_path))
        tenant.kill()
    descriptor = tenancy.take(str(tmp_path))
    assert descriptor is not None
    os.close(descriptor)


def test_a_directory_that_cannot_be_used_is_left_to_the_store_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert tenancy.take(str(tmp_path / "file")) is None
    assert tenancy.take(str(tmp_path / "file" / "below")) is None
