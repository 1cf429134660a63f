"""Which job is the last one: whatever the folders are called, whatever the clocks of the machines say."""

import json
import shutil
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.trials.resume.stored_jobs import find, shares_record, stored_jobs


def job_in(storage: Path, folder: str, time: float, job: str = "", run: str = "", store: str = "") -> Path:
    place = storage / "x" / folder
    place.mkdir(parents=True)
    opened = {"event": "opened", "time": time, "spec": {"pad": "p" * 100_000}, "parent_run": run or f"run of {folder}"}
    opened |= {"job": job, "store": store} if job else {}
    (place / "journal.jsonl").write_text(
        json.dumps(opened) + "\n" + '{"event": "closed", "time": 9, "finished": true}\n'
    )
    return place


def last(storage: Path) -> str:
    return find(str(storage), "x", None).folder


def test_the_last_one_is_the_one_that_began_last_and_not_the_last_name(tmp_path: Path) -> None:
    job_in(tmp_path, "20261126-090000-aaaa", 1000.0)  # begun in Tokyo
    job_in(tmp_path, "20261126-013000-bbbb", 2000.0)  # later, by UTC
    assert last(tmp_path) == "20261126-013000-bbbb"


def test_a_copy_is_known_and_not_gone_on_with(tmp_path: Path) -> None:
    place = job_in(tmp_path, "20260101-000000-aaaa", 1000.0, "20260101-000000-aaaa")
    shutil.copytree(place, place.with_name(f"{place.name}.bak"))
    assert last(tmp_path) == place.name
    original, copy = stored_jobs(str(tmp_path), "x")
    assert (original.is_original, original.copies, copy.is_original) == (True, (copy.folder,), False)
    assert find(str(tmp_path), "x", copy.folder) == copy
    assert find(str(tmp_path), "x", place.name) == original


def test_a_copy_of_an_older_version_is_known_by_its_run(tmp_path: Path) -> None:
    place = job_in(tmp_path, "20260101-000000-aaaa", 1000.0, run="r")
    shutil.copytree(place, place.with_name(f"{place.name}.bak"))
    assert [job.is_original for job in stored_jobs(str(tmp_path), "x")] == [True, False]


def test_one_that_was_renamed_is_itself(tmp_path: Path) -> None:
    job_in(tmp_path, "the good one", 1000.0, "20260101-000000-aaaa")
    [job] = stored_jobs(str(tmp_path), "x")
    assert (job.id, job.is_original) == ("20260101-000000-aaaa", True)
    assert find(str(tmp_path), "x", job.id) == job


def test_two_that_were_renamed_are_for_the_user_to_choose_from(tmp_path: Path) -> None:
    place = job_in(tmp_path, "one", 1000.0, "20260101-000000-aaaa")
    shutil.copytree(place, place.with_name("two"))
    with pytest.raises(UserError, match="hold the same job") as error:
        find(str(tmp_path), "x", None)
    assert "--job" in str(error.value) and "--adopt" in str(error.value)


def test_a_copy_that_was_adopted_is_a_job_of_its_own(tmp_path: Path) -> None:
    place = job_in(tmp_path, "20260101-000000-aaaa", 1000.0, "20260101-000000-aaaa")
    copy = place.with_name("copy")
    shutil.copytree(place, copy)
    with (copy / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({"event": "opened", "time": 3.0, "job": "new", "parent_run": "q", "spec": {}}) + "\n")
    by_folder = {job.folder: job for job in stored_jobs(str(tmp_path), "x")}
    assert by_folder["copy"].id == "new"
    assert all(job.is_original and not job.copies for job in by_folder.values())


def test_an_adopted_job_that_is_alone_goes_by_its_own_id(tmp_path: Path) -> None:
    """Its folder was copied to where the original is not."""
    place = job_in(tmp_path, "20260101-000000-aaaa", 1000.0, "20260101-000000-aaaa")
    with (place / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({"event": "opened", "time": 3.0, "job": "new", "parent_run": "q", "spec": {}}) + "\n")
    assert find(str(tmp_path), "x", None).id == "new"
    assert find(str(tmp_path), "x", "new").folder == place.name


@pytest.mark.parametrize("other", ["s3://nowhere.invalid/runs/x/a", "odd://place/x/a"])
def test_a_folder_that_cannot_be_looked_at_is_left_to_the_record_s_own_mark(tmp_path: Path, other: str) -> None:
    assert not shares_record(f"{tmp_path}/x/a", other.replace("s3://", "hdfs://"), "a", "http://server")


def test_one_whose_journal_is_damaged_at_its_beginning_is_not_passed_over(tmp_path: Path) -> None:
    job_in(tmp_path, "20260101-000000-aaaa", 1000.0)
    damaged = job_in(tmp_path, "20260102-000000-bbbb", 2000.0)
    (damaged / "journal.jsonl").write_text('{"event": "ope')
    assert last(tmp_path) == damaged.name


def test_one_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    job_in(tmp_path, "20260101-000000-aaaa", 1000.0)
    with pytest.raises(UserError, match="there is no job '20260101-000000-aaab'") as error:
        find(str(tmp_path), "x", "20260101-000000-aaab")
    assert "did you mean 20260101-000000-aaaa?" in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "ours", "shares"),
    [
        ("http://server", "http://server", True),
        ("sqlite:////p/mlflow.db", "sqlite:////q/mlflow.db", False),
        ("", "http://server", True),  # an older journal does not tell
    ],
)
def test_two_folders_share_a_record_where_both_write_to_one_store(
    tmp_path: Path, theirs: str, ours: str, shares: bool
) -> None:
    there = job_in(tmp_path / "p", "a", 1.0, "a" if theirs else "", store=theirs)
    here = tmp_path / "q" / "x" / "a"
    assert shares_record(str(here), str(there), "a", ours) is shares
    assert not shares_record(str(there), str(there), "a", ours)
    assert not shares_record(str(here), str(tmp_path / "gone"), "a", ours)


def test_a_store_that_was_copied_with_an_older_job_is_another_one(tmp_path: Path) -> None:
    there = job_in(tmp_path / "p", "a", 1.0)
    store = f"sqlite:///{tmp_path}/q/mlflow.db"
    assert not shares_record(f"{tmp_path}/q/x/a", str(there), "a", store)
    assert shares_record(f"{tmp_path}/q/x/a", str(there), "a", f"sqlite:///{tmp_path}/mlflow.db")


def test_one_folder_under_two_names_is_no_copy(tmp_path: Path) -> None:
    there = job_in(tmp_path / "p", "a", 1.0, "a", store="http://server")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    for name in (f"file://{there}", str(tmp_path / "link" / there.relative_to(tmp_path / "p"))):
        assert not shares_record(name, str(there), "a", "http://server")
        assert not shares_record(str(there), name, "a", "http://server")
