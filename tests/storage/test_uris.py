import os
from pathlib import Path

import pytest

from tuner.storage.uris import holds_secret, is_inside, masked


@pytest.mark.parametrize(
    ("place", "folder", "expected"),
    [
        ("/a/b/c", "/a/b", True),
        ("/a/b", "/a/b", False),
        ("/a/bc", "/a/b", False),
        ("/a/b/../c", "/a/b", False),
        ("/a/b/../b/c", "/a/b", True),
        ("file:///a/b/c", "/a/b", True),
        ("/a/b/my%20c", "file:///a/b", True),
        ("s3://bucket/a/b", "s3://bucket/a", True),
        ("s3://bucket/my a/b", "s3://bucket/my%20a", True),  # as Ray has it
        ("s3://key:secret@bucket/a/b", "s3://bucket/a", True),
        ("s3://bucket/a/../b", "s3://bucket/a", False),
        ("s3://other/a/b", "s3://bucket/a", False),
        ("gs://bucket/a/b", "s3://bucket/a", False),
        ("/bucket/a/b", "s3://bucket/a", False),
        ("http://[", "/a", False),
        ("/a/\0", "/a", False),
        ("", "/a", False),
    ],
)
def test_whether_it_lies_below(place: str, folder: str, expected: bool) -> None:
    assert is_inside(place, folder) is expected


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "moved").symlink_to(tmp_path / "job")
    (tmp_path / "job" / "out").symlink_to(tmp_path)
    (tmp_path / "job" / "circle").symlink_to(tmp_path / "job" / "circle")
    assert is_inside(f"{tmp_path}/job/x", f"{tmp_path}/moved")
    assert not is_inside(f"{tmp_path}/job/out/x", f"{tmp_path}/job")
    assert not is_inside(os.fspath(tmp_path / "job" / "circle" / "x"), f"{tmp_path}/job")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me&password=***"),
        (
            "postgresql://host/db?sslpassword=secret&sslmode=require",
            "postgresql://host/db?sslpassword=***&sslmode=require",
        ),
        ("s3://b?secret_key=secret&scheme=http", "s3://b?secret_key=***&scheme=http"),
        ("abfs://b?Account_Key=secret", "abfs://b?Account_Key=***"),
        ("lost 'http://host/?token=secret' again", "lost 'http://host/?token=***' again"),
        ("s3://b/runs?endpoint_override=host:9000&scheme=http", "s3://b/runs?endpoint_override=host:9000&scheme=http"),
    ],
)
def test_a_password_is_not_shown(uri: str, shown: str) -> None:
    assert masked(uri) == shown


@pytest.mark.parametrize(
    ("uri", "holds"),
    [
        ("s3://bucket/runs@home", False),
        ("s3://bucket/runs?endpoint_override=host:9000&scheme=http", False),
        ("s3://key:secret@bucket/runs", True),
        ("s3://key@bucket/runs", True),
        ("s3://bucket/runs?secret_key=x", True),
        ("http://someone@head:8265", True),
        ("http://head:8265", False),
    ],
)
def test_a_name_or_a_password_in_a_uri_is_seen(uri: str, holds: bool) -> None:
    assert holds_secret(uri) is holds
