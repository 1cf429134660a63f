"""Where hosts listen: each GPU of each node and job has one, whose folder is this user's alone."""

import os
from pathlib import Path

import pytest

from tuner.ray_backend.host.address import address_of, locked


def test_each_job_node_and_gpu_has_a_host_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    found = []
    for gpu in ("0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpu)
        found += [address_of(job, node, tmp_path) for job in ("one", "other") for node in ("a", "b")]
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    found.append(address_of("one", "a", tmp_path))
    assert len({each.socket for each in found}) == len({each.log for each in found}) == 9
    assert address_of("one", "a", tmp_path) == found[-1]


def test_the_path_of_its_socket_is_no_longer_than_those_of_ray(tmp_path: Path) -> None:
    socket = address_of("job", "node", tmp_path).socket
    longest = len(str(socket)) + len(f"{2**32 - 1:x}") - len(f"{os.getuid():x}")
    assert longest <= len(f"{tmp_path}/sockets/plasma_store")


def test_a_folder_that_others_may_have_made_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = address_of("job", "node", tmp_path).socket.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        address_of("job", "node", tmp_path)
    folder.rmdir()
    (tmp_path / "theirs").mkdir(0o700)
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        address_of("job", "node", tmp_path)
    folder.unlink()
    folder.mkdir(0o700)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    (tmp_path / f"host-{uid + 1:x}").mkdir(0o700)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        address_of("job", "node", tmp_path)


def test_the_lock_is_of_one_at_a_time(tmp_path: Path) -> None:
    socket = tmp_path / "host"
    with locked(socket) as first, locked(socket, waits=False) as second:
        assert first and not second
    with locked(socket, waits=False) as third:
        assert third
