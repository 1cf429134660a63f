"""CSV files and their images, all made here."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_files import noise, problem_of, write_csv
from PIL import Image
from pydantic import ValidationError

from tuner.data import CSVImages
from tuner.data.images import ImageData
from tuner.data.splits import Folds
from tuner.errors import Problem, UserError
from tuner.train.trial_config import TrialConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 images, 0.png to 59.png."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(60):
        noise(number).save(folder / f"{number}.png")
    return folder


def written(folder: Path, header: str, *rows: str, encoding: str = "utf-8", name: str = "x.csv") -> str:
    (folder / name).write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return str(folder / name)


def table(folder: Path, tmp_path: Path, header: str, *columns: Any) -> CSVImages:
    """A CSV file of the 60 images, with columns that are computed from their numbers."""
    rows = [",".join([f"{number}.png", *(str(column(number)) for column in columns)]) for number in range(60)]
    return CSVImages(file=written(tmp_path, header, *rows), root=str(folder), size=8)


def refused(tmp_path: Path, folder: Path, text: str, **fields: Any) -> Problem:
    (tmp_path / "x.csv").write_text(text)
    return problem_of(CSVImages, file=str(tmp_path / "x.csv"), root=str(folder), **fields)


def test_images_and_classes_are_those_of_their_rows(tmp_path: Path) -> None:
    data = CSVImages(file=str(write_csv(tmp_path)), size=12, resize="squash")
    assert data.describe().sizes == {"train": 171, "validation": 18, "test": 21}
    assert data.targets["label"].classes == ("a", "b", "c")
    test = data.load_test()
    labels = test.targets["label"].tolist()
    for name, label, image in zip(data.files()["test"].names, labels, test.images, strict=True):
        number = int(Path(name).stem)
        assert label == number % 3
        expected = noise(number).resize((12, 12), Image.Resampling.BILINEAR)
        assert (np.moveaxis(np.asarray(expected), -1, 0) == image.numpy()).all()


def test_words_of_splits_in_any_case(folder: Path, tmp_path: Path) -> None:
    words = ["train", "Training", "TRAIN", "val", "Test", "dev"]
    data = table(folder, tmp_path, "file,label,part", lambda n: n // 6 % 2, lambda n: words[n % 6])
    data = CSVImages(file=data.file, root=data.root, size=8, split="part")
    assert data.describe().sizes == {"train": 30, "validation": 20, "test": 10}
    assert all(int(Path(name).stem) % 6 == 4 for name in data.files()["test"].names)


def test_columns_of_0_and_1_are_the_validation_and_the_test_set(folder: Path, tmp_path: Path) -> None:
    plain = table(
        folder,
        tmp_path,
        "path,label,is_valid,held",
        lambda n: n % 2,
        lambda n: n % 10 == 3 and n < 50,
        lambda n: int(n > 50),
    )
    data = CSVImages(file=plain.file, root=plain.root, size=8, validation="is_valid", test="held")
    assert data.describe().sizes == {"train": 46, "validation": 5, "test": 9}
    assert plain.describe().digest != data.describe().digest


@pytest.mark.parametrize("folds", [None, Folds(k=4, fold=3)], ids=["share", "folds"])
def test_a_group_is_never_in_two_sets(folder: Path, tmp_path: Path, folds: Folds | None) -> None:
    plain = table(folder, tmp_path, "path,label,patient", lambda n: n % 2, lambda n: n // 3)
    data = CSVImages(file=plain.file, root=plain.root, size=8, group="patient", folds=folds, test=0.2)
    patients = [{int(Path(name).stem) // 3 for name in items.names} for items in data.files().values()]
    assert sum(map(len, patients)) == 20 == len(set().union(*patients))
    assert all(len(items) > 0 for items in data.files().values())


def test_folds_of_a_table_share_no_validation_image(folder: Path, tmp_path: Path) -> None:
    plain = table(folder, tmp_path, "path,label", lambda n: n % 2)
    names = [
        CSVImages(file=plain.file, root=plain.root, size=8, folds=Folds(k=5, fold=fold)).files()["validation"].names
        for fold in range(1, 6)
    ]
    test = plain.files()["test"].names
    assert sorted([*chain.from_iterable(names), *test]) == sorted(f"{number}.png" for number in range(60))


@pytest.mark.parametrize("form", ["columns", "separator"])
def test_an_image_may_have_several_classes(form: str, folder: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"labels": ["red", "round", "big"]}
    if form == "columns":
        plain = [f"{n}.png,{n % 2},{int(n % 3 == 0)},{int(n % 5 == 0)}" for n in range(60)]
        file = written(tmp_path, "path,red,round,big", *plain)
    else:
        more = {"separator": " ", "labels": "tags"}
        words = [" ".join(["red"] * (n % 2) + ["round"] * (n % 3 == 0) + ["big"] * (n % 5 == 0)) for n in range(60)]
        file = written(tmp_path, "path,tags", *(f"{n}.png,{words[n]}" for n in range(60)))
    data = CSVImages(file=file, root=str(folder), size=8, **more)
    classes = ("red", "round", "big") if form == "columns" else ("big", "red", "round")
    target = data.targets["label"]
    assert target.classes == classes and target.kind == "multilabel"
    train, validation = data.load()
    assert train.targets["label"].dtype == torch.float32 and train.targets["label"].shape == (len(train), 3)
    for split, part in (("train", train), ("validation", validation), ("test", data.load_test())):
        for name, labels in zip(data.files()[split].names, part.targets["label"].tolist(), strict=True):
            n = int(Path(name).stem)
            expected = {"red": n % 2, "round": n % 3 == 0, "big": n % 5 == 0}
            assert labels == [float(expected[each]) for each in classes]
    trial = {
        "task": {"kind": "multilabel"},
        "data": data.model_dump(mode="json"),
        "model": {"kind": "cnn", "hidden": 8},
    }
    assert TrialConfig.model_validate(trial).data == data
    assert data.class_counts()["label"].samples == len(train)


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t"), ("latin-1", "|")]
)
def test_encodings_and_delimiters(encoding: str, delimiter: str, tmp_path: Path) -> None:
    for number in range(10):
        noise(number).save(tmp_path / f"é{number}.png")
    rows = [f"é{number}.png{delimiter}{'été' if number % 2 else 'hiver'}" for number in range(10)]
    file = written(tmp_path, f"path{delimiter}label", *rows, encoding=encoding)
    data = CSVImages(file=file, size=8, encoding=encoding.removesuffix("-sig"))
    assert data.targets["label"].classes == ("hiver", "été")
    assert len(data.load()[0]) == 6
    if encoding == "latin-1":
        assert problem_of(CSVImages, file=file).key == "encoding"


def test_paths_may_lack_their_suffix_and_rows_may_repeat(folder: Path, tmp_path: Path) -> None:
    rows = [f"./{number},{number % 2}" for number in range(60)]
    file = written(tmp_path, "id,label", *rows, "", "7,1", " 8 , 0 ")
    data = CSVImages(file=file, root=str(folder), paths="id", suffix=".png", size=8)
    assert sum(data.describe().sizes.values()) == 60
    assert "ignored 2 rows that repeat an image" in data.prepare()[1]


def test_rows_that_repeat_an_image_without_a_group_are_one(folder: Path, tmp_path: Path) -> None:
    rows = [f"{number}.png,{number % 2},{'' if number < 40 else number // 3}" for number in range(60)]
    files = [
        CSVImages(file=written(tmp_path, "path,label,patient", *each, name=name), root=str(folder), group="patient")
        for name, each in (("once.csv", rows), ("twice.csv", [*rows, *rows[:5]]))
    ]
    once, twice = ({split: items.names for split, items in each.files().items()} for each in files)
    assert once == twice
    groups = np.concatenate([items.groups for items in files[0].files().values() if items.groups is not None])
    assert sorted(groups[groups >= 60]) == list(range(60, 100)), "the digests of recorded jobs hold these numbers"
    problem = refused(
        tmp_path, folder, f"path,label,who\n{ROWS}0.png,a,x\n".replace("\n0.png,a\n", "\n0.png,a,\n"), group="who"
    )
    assert problem.key == "group" and "lines 2 and 10 give 0.png more than one group" in problem.message


def test_numbers_are_classes_in_the_order_of_their_values(folder: Path, tmp_path: Path) -> None:
    data = table(folder, tmp_path, "path,label", lambda n: [2, 10, 1][n % 3])
    assert data.targets["label"].classes == ("1", "2", "10")


ROWS = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(8))


@pytest.mark.parametrize(
    ("text", "fields", "key", "message"),
    [
        ("", {}, "file", "cannot be read"),
        ("path,label\n", {}, "file", "has no rows"),
        ("path,label\n0.png,a,b\n1.png,b,c\n", {}, "delimiter", "more cells than the first line"),
        ("path,label\n0.png,a\n1.png,b,c\n", {}, "file", "cannot be read: Expected 2 fields in line 3, saw 3"),
        ('path,label\n0.png,"a\n1.png,b\n', {}, "file", "cannot be read"),
        ("path,label\na\0b.png,c\n0.png,b\n", {}, "paths", "cannot be found"),
        ("a,b\n1,2\n", {}, "paths", "has no column named path"),
        ("path,x\n0.png,a\n", {}, "labels", "has no column named label"),
        ("path,label,label\n0.png,a,b\n", {}, "labels", "has more than one column 'label'"),
        ("path,label,x,x\n0.png,a,b,c\n", {"group": "x"}, "group", "has more than one column 'x'"),
        ("\n0.png,a\n", {}, "file", "has an empty first line"),
        ("path,label\n" + ROWS, {"labels": "lable"}, "labels", "has no column 'lable'"),
        (
            "path,label\n" + ROWS + "gone.png,a\n3/4.png,b\n",
            {},
            "paths",
            "2 images of 10 cannot be found: gone.png (line 10",
        ),
        ("path,label\n" + ROWS + "1.png,\n\n2.png,\n", {}, "labels", "2 rows have no label (line 10, 12)"),
        ("path,label\n" + ROWS + ",a\n", {}, "paths", "1 row has no path (line 10)"),
        ('path,label,note\n0.png,a,"x\ny"\n1.png,,z\n', {}, "labels", "(line 4)"),
        ("path,label\n0.png,a\n1.png,a\n2.png,a\n3.png,a\n", {}, "labels", "has one class, a"),
        ("path,label\n" + ROWS + "0.png,b\n", {}, "labels", "lines 2 and 10 give 0.png more than one label"),
        (
            "path,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,trial\n",
            {"split": "split"},
            "split",
            "1 row has another split: 'trial' (line 4)",
        ),
        (
            "path,label,split\n0.png,a,train\n1.png,b,train\n0.png,a,test\n",
            {"split": "split"},
            "split",
            "lines 2 and 4 give 0.png more than one set",
        ),
        (
            "path,label,split\n0.png,a,train\n1.png,b,train\n2.png,c,test\n",
            {"split": "split"},
            "labels",
            "test has classes that train lacks: c",
        ),
        (
            "path,label,split\n0.png,a,test\n1.png,b,test\n",
            {"split": "split"},
            "split",
            "no row is of the training set",
        ),
        (
            "path,label,split,who\n0.png,a,train,x\n1.png,b,train,y\n2.png,a,test,x\n",
            {"split": "split", "group": "who"},
            "group",
            "the group x is in train (line 2) and test (line 4)",
        ),
        (
            "path,label,who\n" + ROWS.replace("\n", ",x\n"),
            {"group": "who"},
            "file",
            "1 group cannot be split into 3 sets",
        ),
        (
            "path,red,big\n0.png,1,2\n1.png,0,1\n",
            {"labels": ["red", "big"]},
            "labels",
            "another label than 0 or 1: '2' (line 2)",
        ),
        ("path,label\n" + ROWS, {"validation": "label"}, "validation", "8 rows have neither 0 nor 1 in label"),
        (
            "path,label\n0.png,a\n1.png,a\n2.png,b\n3.png,b\n",
            {},
            "file",
            "2 classes have fewer images than sets: a (2), b (2)",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_told(
    text: str, fields: dict[str, Any], key: str, message: str, folder: Path, tmp_path: Path
) -> None:
    problem = refused(tmp_path, folder, text, **fields)
    assert problem.key == key and message in problem.message


def test_files_and_links_that_are_no_images_are_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    file = written(
        tmp_path, "path,label", *(f"{folder}/{n}.png,{n % 2}" for n in range(20)), "loop.png,1", "folder.png,0"
    )
    assert (
        "2 images of 22 cannot be found: loop.png (line 22), folder.png (line 23)"
        in problem_of(CSVImages, file=file).message
    )
    assert "No such file" in problem_of(CSVImages, file=str(tmp_path / "gone.csv")).message
    for fields in ({"encoding": "klingon"}, {"labels": ["label"]}, {"labels": ["a", "b"], "separator": " "}):
        with pytest.raises(ValidationError, match=next(reversed(fields))):
            CSVImages(file=file, **fields)


def test_a_broken_image_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    Image.new("CMYK", (9, 9)).save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    rows = [f"{folder}/{n}.png,{n % 2}" for n in range(20)]
    whole = written(tmp_path, "path,label", *rows, "cmyk.jpg,0", "deep.png,1")
    assert len(CSVImages(file=whole, size=8, channels=3, mean_std="imagenet").load()[0]) == 18
    file = written(tmp_path, "path,label", *rows, "broken.png,0", name="y.csv")
    data: ImageData = CSVImages(file=file, size=8, channels=3, mean_std="imagenet")
    with pytest.raises(UserError, match=r"1 file cannot be read: broken\.png: it is not") as error:
        data.load()
    assert error.value.problems[0].key == "trial.data.file"


def test_a_column_of_a_class_that_yaml_reads_as_a_truth_value_needs_quotes(tmp_path: Path) -> None:
    problem = problem_of(CSVImages, file=str(tmp_path / "a.csv"), labels=["no", True])
    assert (problem.message, problem.hint) == ("true is no name of a class", 'a name is a text: in quotes, "true"')
