"""Folders for files that nobody needs afterwards."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tuner.storage import temporary

HOLD = """
from tuner.storage import temporary
with temporary.folder() as there:
    (there / "file").touch()
    print(there, flush=True)
    input()
"""


def test_what_a_killed_process_has_left_is_cleared_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [tmp_path / name for name in ("tuner-store-0-x", f"tuner-elsewhere-{2**22 + 1}-x")]
    for other in others:
        other.mkdir()
    killed, alive = (
        subprocess.Popen(
            [sys.executable, "-c", HOLD],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    try:
        assert killed.stdout and alive.stdout
        left, used = (Path(process.stdout.readline().strip()) for process in (killed, alive) if process.stdout)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "file").exists()
        with temporary.folder() as ours:
            temporary.clear_up()
            assert not left.exists() and (used / "file").exists() and ours.is_dir()
        assert not ours.exists()
        assert sorted(tmp_path.iterdir()) == sorted([*others, used])
        alive.communicate("\n", timeout=20)
        assert not used.exists()
    finally:
        for process in (killed, alive):
            process.kill()
            process.wait()
