"""Parquet files as Hugging Face writes them, all made here."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_files import encoded, noise, problem_of, write_parquet

from tuner.data import ParquetImages
from tuner.data.decoding import Undecodable
from tuner.data.encoded.parquet import listing as parquet_listing
from tuner.data.encoded.parquet.listing import listing_of
from tuner.data.encoded.parquet.rows import Shard, _Recent, image_of
from tuner.data.loading.source import LoaderResources
from tuner.errors import UserError

NAMES = ("tench", "crane", "maillot")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of training images, one of test images."""
    folder = tmp_path / "photos"
    write_parquet(folder / "train-00000-of-00002.parquet", [0, 1, 2] * 10, NAMES)
    write_parquet(folder / "train-00001-of-00002.parquet", [2, 1, 0] * 10, NAMES, first=100)
    write_parquet(folder / "test-00000-of-00001.parquet", [0, 1, 2] * 4, NAMES, first=200)
    return folder


def test_the_images_and_names_are_those_of_the_shards(shards: Path) -> None:
    data = ParquetImages(file=str(shards), size=12, resize="squash", validation=0.2)
    assert data.describe().sizes == {"train": 48, "validation": 12, "test": 12}
    assert data.targets["label"].classes == NAMES
    train, validation = data.load()
    for split, part in (("train", train), ("validation", validation), ("test", data.load_test())):
        for name, label, image in zip(data.files()[split].names, part.targets["label"], part.images, strict=True):
            shard, row = name.split(":")
            number = int(row) + {"train-00000": 0, "train-00001": 100, "test-00000-": 200}[shard[:11]]
            assert label == (2 - int(row) % 3 if shard.startswith("train-00001") else int(row) % 3)
            expected = np.asarray(noise(number).resize((12, 12), 2))
            assert (np.moveaxis(expected, -1, 0) == image.numpy()).all()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The groups of rows that are read from now on, by a process that has read and keeps none."""
    import pyarrow.parquet as pq

    reads: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counting(file: pq.ParquetFile, group: int, **more: Any) -> Any:
        reads.append(group)
        return read(file, group, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    monkeypatch.setattr("tuner.data.encoded.parquet.rows._RECENT", _Recent())
    monkeypatch.setattr("tuner.data.encoded.parquet.rows._KEPT", 0)
    return reads


def test_a_group_of_rows_is_read_once(shards: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    data = ParquetImages(file=str(shards), size=8, channels=3, mean_std="imagenet")
    data._images_of(data.files()["train"])
    assert len(reads) == 6, "the images are asked for in random order, and read in that of the rows"


PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    ("written", "one_by_one"),
    [
        (PLAIN | {"write_page_index": True, "use_content_defined_chunking": True}, True),  # as Hugging Face does
        (PLAIN | {"data_page_size": 64, "write_batch_size": 1}, True),
        (PLAIN | {"data_page_version": "2.0"}, True),
        (PLAIN | {"use_dictionary": True}, True),
        (PLAIN | {"column_encoding": "DELTA_BYTE_ARRAY"}, False),
        ({"compression": "snappy"}, False),
        ({"compression": "zstd", "use_dictionary": False}, False),
    ],
)
def test_an_image_is_read_without_its_group_where_the_file_has_its_bytes(
    written: dict[str, Any], one_by_one: bool, nested: bool, tmp_path: Path, reads: list[int]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, group = 40, 10
    images = [encoded(number) + bytes(number) for number in range(count)]
    values = [{"bytes": each, "path": "x"} for each in images] if nested else images
    table = pa.table({"number": list(range(count)), "image": values, "label": [0, 1] * (count // 2)})
    if "column_encoding" in written:
        name = "image.bytes" if nested else "image"
        written = written | {"column_encoding": {name: written["column_encoding"]}}
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=group, **written)
    shards = {"x": Shard(tmp_path / "x.parquet", tuple(range(0, count + 1, group)))}
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    for number in order * 2:
        assert image_of(shards, "image", f"x:{number}") == images[number]
    assert (sorted(reads) == [0, 1, 2, 3]) == one_by_one
    assert len(reads) > count or one_by_one


def test_images_that_are_missing_or_twice_in_a_group_are_read_like_others(tmp_path: Path, reads: list[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [encoded(0), None, encoded(1), encoded(0), b"", encoded(1)]
    rows = [None if each is None else {"bytes": each} for each in images]
    table = pa.table({"image": pa.array(rows, pa.struct([("bytes", pa.binary())]))})
    for number, options in enumerate((PLAIN, PLAIN | {"use_dictionary": True})):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=6, **options)
        other = tmp_path / "other.parquet"
        pq.write_table(table, other, row_group_size=6)
        shards = {"x": Shard(path, (0, 6)), "other": Shard(other, (0, 6))}
        for row in (0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0):
            for name in ("other:0", f"x:{row}"):
                if name == "other:0" or images[row]:
                    assert image_of(shards, "image", name) == (images[0] if name == "other:0" else images[row])
                else:
                    with pytest.raises(Undecodable, match="it has no bytes"):
                        image_of(shards, "image", name)


def test_a_file_that_changes_while_it_is_used_is_told(tmp_path: Path, reads: list[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    for first in (0, 10):
        table = pa.table({"image": [encoded(first + number) for number in range(4)]})
        pq.write_table(table, path, row_group_size=2, **PLAIN)
        if first == 0:
            shards = {"x": Shard(path, (0, 2, 4))}
            assert [image_of(shards, "image", f"x:{row}") for row in (0, 2)] == [encoded(0), encoded(2)]
    with pytest.raises(Undecodable, match="the file has changed while it was in use"):
        image_of(shards, "image", "x:1")


@pytest.mark.parametrize("pattern", ["photos/train-*.parquet", "photos", "photos/*.parquet"])
def test_a_pattern_a_folder_and_a_file(pattern: str, shards: Path) -> None:
    sizes = ParquetImages(file=str(shards.parent / pattern), size=8).describe().sizes
    assert sum(sizes.values()) == (60 if "train" in pattern else 72)
    assert sizes["test"] == (6 if "train" in pattern else 12)
    assert ParquetImages(file=str(shards / "test-00000-of-00001.parquet"), size=8).describe().sizes["train"] == 6


def test_folders_are_sets_and_a_pattern_names_one(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test" / "train" / "0000.parquet", ["a", "b"] * 10)
    write_parquet(tmp_path / "test" / "validation" / "0000.parquet", ["a", "b"] * 2, first=50)
    write_parquet(tmp_path / "test" / "extra" / "0000.parquet", ["b", "a"] * 3, first=70)
    data = ParquetImages(file=str(tmp_path / "test"), size=8)
    assert data.describe().sizes == {"train": 18, "validation": 4, "test": 2}
    assert "ignored extra/0000.parquet, whose name says no set" in data.prepare()[1]
    named = ParquetImages(file=str(tmp_path / "test"), size=8, test="extra/*")
    assert named.describe().sizes == {"train": 20, "validation": 4, "test": 6}
    assert problem_of(ParquetImages, file=str(tmp_path / "test"), test="held*").key == "test"


def test_a_pattern_that_gives_no_image_is_refused(shards: Path) -> None:
    import pyarrow.parquet as pq

    one = problem_of(ParquetImages, file=str(shards / "test-00000-of-00001.parquet"), validation="test*")
    assert one.key == "validation" and "'test*' gives no image to the validation set" in one.message
    assert problem_of(ParquetImages, file=f"{shards}/train*", test="train*").key == "test"
    empty = pq.read_table(shards / "test-00000-of-00001.parquet").slice(0, 0)
    pq.write_table(empty, shards / "held.parquet")
    assert (
        "'held*' gives no image to the validation set"
        in problem_of(ParquetImages, file=str(shards), validation="held*").message
    )


def test_what_finds_images_in_other_processes_lists_nothing_anew(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ParquetImages(file=str(shards), size=8)
    name = data.files()["train"].names[0]
    wanted, sent = data.encoded(name), pickle.dumps(data.encoded)
    listing_of.cache_clear()
    monkeypatch.setattr(parquet_listing, "_Reader", lambda *_: pytest.fail("lists the files"))
    assert pickle.loads(sent)(name) == wanted


def test_labels_are_texts_numbers_or_lists(tmp_path: Path) -> None:
    texts = ParquetImages(file=str(write_parquet(tmp_path / "a.parquet", ["hiver", "été"] * 10)), size=8)
    assert texts.targets["label"].classes == ("hiver", "été")
    numbers = ParquetImages(file=str(write_parquet(tmp_path / "b.parquet", [10, 2] * 10)), size=8)
    assert numbers.targets["label"].classes == ("2", "10")
    for name, label in zip(numbers.files()["train"].names, numbers.files()["train"].labels.tolist(), strict=True):
        assert label == 1 - int(name.split(":")[1]) % 2
    given = [[0], [2, 1], [], [1]] * 10
    several = ParquetImages(file=str(write_parquet(tmp_path / "c.parquet", given, NAMES)), size=8)
    target = several.targets["label"]
    assert target.kind == "multilabel" and target.classes == NAMES
    for name, labels in zip(several.files()["train"].names, several.load()[0].targets["label"], strict=True):
        assert set(labels.nonzero().flatten().tolist()) == set(given[int(name.split(":")[1])])
    unused = ParquetImages(file=str(write_parquet(tmp_path / "d.parquet", [2, 0] * 10, NAMES)), size=8)
    assert unused.targets["label"].classes == ("tench", "maillot")
    assert "1 class without images" in unused.prepare()[1]
    by_class = [int(name.split(":")[1]) % 2 for name in unused.files()["train"].names]
    assert unused.files()["train"].labels.tolist() == [1 - each for each in by_class]


def test_a_shard_that_is_cut_short_is_named(shards: Path) -> None:
    whole = shards / "train-00001-of-00002.parquet"
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    problem = problem_of(ParquetImages, file=str(shards))
    assert "train-00001-of-00002.parquet cannot be read" in problem.message and problem.key == "file"
    whole.write_bytes(content[:100] + bytes(2000) + content[2100:])  # its end is there, and its images are damaged
    data = ParquetImages(file=str(shards), size=8, channels=3, mean_std="imagenet")
    with pytest.raises(UserError, match=r"train-00001-of-00002\.parquet:\d+: its rows cannot be read"):
        data.load()


def test_what_is_wrong_is_told(shards: Path, tmp_path: Path) -> None:
    assert "no file has such a name" in problem_of(ParquetImages, file=str(tmp_path / "x*.parquet")).message
    assert "No such file" in problem_of(ParquetImages, file=str(tmp_path / "x.parquet")).message
    (tmp_path / "empty").mkdir()
    assert "has no Parquet file" in problem_of(ParquetImages, file=str(tmp_path / "empty")).message
    assert problem_of(ParquetImages, file=str(shards), images="picture").key == "images"
    problem = problem_of(ParquetImages, file=str(shards), labels="lable")
    assert problem.key == "labels" and "its columns: image, label" in problem.hint
    write_parquet(shards / "test-00000-of-00001.parquet", [-1] * 5, NAMES)
    assert (
        "5 images of test have no label, such as test-00000-of-00001.parquet:0: -1"
        in problem_of(ParquetImages, file=str(shards)).message
    )
    write_parquet(shards / "test-00000-of-00001.parquet", [3] * 5, NAMES)
    assert "a label is 3, and its classes are 3" in problem_of(ParquetImages, file=str(shards)).message
    one = write_parquet(tmp_path / "one.parquet", [0] * 9)
    assert "has one class, 0" in problem_of(ParquetImages, file=str(one)).message
    floats = write_parquet(tmp_path / "floats.parquet", [0.5] * 9)
    assert "a label is 0.5, of type float" in problem_of(ParquetImages, file=str(floats)).message
    write_parquet(tmp_path / "new" / "train.parquet", ["a", "b"] * 5)
    write_parquet(tmp_path / "new" / "test.parquet", ["a", "c"])
    assert "test has classes that train lacks: c" in problem_of(ParquetImages, file=str(tmp_path / "new")).message


@pytest.mark.parametrize(
    ("labels", "names", "key", "message"),
    [
        ([0, 1], ("crane", "tench", "maillot"), "labels", "class 0 is tench in train-0.parquet, and crane in train-1"),
        ([0, 1], ("tench", "crane"), "labels", "class 2 is maillot in train-0.parquet, and without a name in train-1"),
        ([0, 1], None, "labels", "class 0 is tench in train-0.parquet, and without a name in train-1"),
        ([[0], [1]], NAMES, "labels", "labels are numbers in train-0.parquet, and lists of numbers in train-1"),
        (["tench", "crane"], None, "labels", "labels are numbers in train-0.parquet, and texts in train-1.parquet"),
    ],
)
def test_shards_that_mean_something_else_are_refused(
    labels: list[Any], names: tuple[str, ...] | None, key: str, message: str, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "train-0.parquet", [0, 1, 2] * 5, NAMES)
    write_parquet(tmp_path / "train-1.parquet", labels * 5, names)
    problem = problem_of(ParquetImages, file=str(tmp_path))
    assert problem.key == key and message in problem.message


def test_shards_with_other_columns_are_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for number, names in enumerate((["image", "label"], ["img", "label"], ["image", "target"])):
        table = pq.read_table(write_parquet(tmp_path / "whole.parquet", [0, 1] * 10)).rename_columns(names)
        (tmp_path / "x").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "x" / f"{number}.parquet")
    assert "'image' in 0.parquet, and 'img' in 1.parquet" in problem_of(ParquetImages, file=str(tmp_path / "x")).message
    problem = problem_of(ParquetImages, file=f"{tmp_path}/x/[02].parquet")
    assert problem.key == "labels" and "'label' in 0.parquet, and 'target' in 2.parquet" in problem.message


def test_a_shard_without_rows_means_nothing(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(write_parquet(tmp_path / "train-1.parquet", [0, 1] * 10, NAMES))
    pq.write_table(table.slice(0, 0).replace_schema_metadata({}), tmp_path / "train-0.parquet")
    assert ParquetImages(file=str(tmp_path), size=8).describe().sizes["train"] == 16


def test_a_file_that_changes_changes_the_digest(shards: Path) -> None:
    before = ParquetImages(file=str(shards), size=8).describe().digest
    write_parquet(shards / "train-00000-of-00002.parquet", [1, 0, 2] * 10, NAMES)
    listing_of.cache_clear()
    assert ParquetImages(file=str(shards), size=8, limit=7).describe().digest != before


def test_two_columns_of_a_file_have_decoded_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
    images = {name: [encoded(first + number) for number in range(20)] for name, first in (("left", 0), ("right", 50))}
    pq.write_table(pa.table({**images, "label": [0, 1] * 10}), tmp_path / "pairs.parquet")
    for column in images:
        data = ParquetImages(file=str(tmp_path / "pairs.parquet"), images=column, size=8, cache="disk")
        [wanted] = data.load()[1].batches(9)
        with data.opened(torch.device("cpu"), LoaderResources(0)) as (_, validation):
            assert torch.equal(next(iter(validation.batches(9))).inputs, wanted.inputs)


@pytest.mark.slow  # a process imports torch
def test_worker_processes_read_shards(shards: Path) -> None:
    data = ParquetImages(file=str(shards), size=8, cache="none", batch_size=16)
    expected = [batch.inputs for batch in data.load()[0].batches(16, 3)]
    with data.opened(torch.device("cpu"), LoaderResources(1)) as (train, _):
        for batch, inputs in zip(train.batches(16, 3), expected, strict=True):
            assert torch.equal(batch.inputs, inputs)
