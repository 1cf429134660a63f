"""Where the images and labels of a folder of YOLO's are: as its data.yaml says, or by the names of its folders."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tuner.data.decoding import is_image
from tuner.data.encoded.class_names import check_texts
from tuner.data.encoded.folders.listing import Lister
from tuner.data.encoded.listing import split_of
from tuner.error_text import escaped, one_line
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.storage.yaml import parse_yaml

_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_LAYOUT = (
    "a folder has data.yaml, which names the classes and the folders of images; or images and labels, with train, val "
    "and test in both, or these folders with images and labels in each"
)
_NAMES = "names: [cat, dog], or names: {0: cat, 1: dog}"


@dataclass(frozen=True)
class Layout:
    """What a data.yaml says.

    Args:
        path: The file; None if there is none.
        names: The names of the classes; empty if there is no file.
        folder: What the paths are relative to.
        sources: Folders of images, or files that list images, by split.
        has_keypoints: Whether labels have key points behind the boxes.
        ignored: What was ignored, in phrases for the user.
    """

    path: Path | None
    names: tuple[str, ...]
    folder: Path
    sources: dict[str, list[Path]]
    has_keypoints: bool = False
    ignored: tuple[str, ...] = ()


def layout_of(root: Path, name: str | None) -> Layout:
    """Find the images of each split.

    Args:
        root: The folder.
        name: The name of the YAML file; None for data.yaml, or the only one.

    Raises:
        Mistakes: The file cannot be read, or names what is not there; or the folder has no images in folders.
    """
    if root.is_file():
        _refuse(root, "it is a file", f"root is the folder, and yaml names the file in it: yaml: {escaped(root.name)}")
    path = root / name if name is not None else yaml_in(root)
    if path is None:
        return _by_folders(root)
    return _Described(root, path, "root" if name is None else "yaml").layout()


def yaml_in(root: Path) -> Path | None:
    """The YAML file that describes a folder; None if it has none."""
    usual = [root / "data.yaml", root / "data.yml"]
    try:
        others = sorted(each for each in root.iterdir() if each.suffix.lower() in (".yaml", ".yml"))
    except OSError as error:
        _refuse(root, f"it cannot be read: {error.strerror or error}", "a path is relative to the folder of the file")
    found = [path for path in usual if path.is_file()] or (others if len(others) == 1 else [])
    return found[0] if found else None


def _by_folders(root: Path) -> Layout:
    sources: dict[str, list[Path]] = {}
    for pattern in ("images/*", "*/images"):
        for folder in sorted(root.glob(pattern)):
            split = split_of(folder.name if pattern == "images/*" else folder.parent.name)
            if split is None or not folder.is_dir():
                continue
            if split in sources and pattern == "images/*":
                _refuse(root, f"{sources[split][0].name} and {folder.name} would both be the {split} set", _LAYOUT)
            sources.setdefault(split, [folder])
    if not sources and (root / "images").is_dir():
        sources["train"] = [root / "images"]
    if "train" not in sources:
        _refuse(root, "it has no data.yaml, and no folder of training images", _LAYOUT)
    return Layout(None, (), root, sources)


@dataclass
class _Described:
    """Reads a data.yaml."""

    root: Path
    path: Path
    key: str

    def layout(self) -> Layout:
        content = self._content()
        folder = self.root
        if isinstance(given := content.get("path"), str) and (self.root / given).is_dir():
            folder = Path(os.path.normpath(self.root / given))  # else it is that of another machine
        sources, ignored = {}, []
        for split, keys in _KEYS.items():
            key = next((key for key in keys if content.get(key)), None)
            if key is None:
                continue
            found = self._sources(folder, key, content[key])
            if missing := [given for given, path in found if path is None]:
                what = f"{key} names {escaped(missing[0])}, which is not there"
                if split != "test":
                    self._refuse(what, f"write a path relative to {folder}, or to path: ...")
                ignored.append(f"{self.path.name}: {what}")
                continue
            sources[split] = [path for _, path in found if path is not None]
        if "train" not in sources:
            self._refuse("it has no train", "train: images/train names the folder of the training images")
        return Layout(self.path, self._names(content), folder, sources, "kpt_shape" in content, tuple(ignored))

    def _content(self) -> dict[str, Any]:
        try:
            content = parse_yaml(self.path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            self._refuse(f"it cannot be read: {error.strerror or error}", "a path is relative to the dataset's folder")
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
            why = getattr(error, "problem", None) or str(error)
            self._refuse(f"it is no YAML: {one_line(why)}{where}", "repair it there")
        if not isinstance(content, dict):
            self._refuse("it holds no keys", f"train: images/train, val: images/val, {_NAMES}")
        return content

    def _names(self, content: dict[str, Any]) -> tuple[str, ...]:
        names = content.get("names")
        if isinstance(names, dict):
            if sorted(names) != sorted(map(str, range(len(names)))):
                keys = one_line(", ".join(list(names)[:10]))
                self._refuse(f"names has the keys {keys}", f"the indices of the classes, from 0: {_NAMES}")
            names = [names[str(number)] for number in range(len(names))]
        if not isinstance(names, list) or not names:
            self._refuse("it has no names" if names is None else f"names is {one_line(repr(names))}", _NAMES)
        texts = [str(name) if type(name) in (int, float) else name for name in names]
        try:
            check_texts(texts)
        except Mistakes as mistakes:
            self._refuse(f"names: {mistakes.problems[0].message}", mistakes.problems[0].hint)
        if not all(text.strip() for text in texts):
            self._refuse("names has an empty one", f"texts: {_NAMES}")
        if twice := [text for text in texts if texts.count(text) > 1]:
            self._refuse(f"names has {escaped(twice[0])} twice", "each class has a name of its own")
        if isinstance(number := content.get("nc"), int) and number != len(texts):
            self._refuse(f"nc is {number}, and names has {counted(len(texts), 'name')}", "make them agree")
        return tuple(texts)

    def _sources(self, folder: Path, key: str, given: Any) -> list[tuple[str, Path | None]]:
        texts = given if isinstance(given, list) else [given]
        if not all(isinstance(text, str) for text in texts):
            self._refuse(f"{key} is {one_line(repr(given))}", "a folder of images, a list of folders, or a .txt file")
        return [(text, source_of(folder, text)) for text in texts]

    def _refuse(self, what: str, hint: str) -> NoReturn:
        _refuse(self.path, what, hint, self.key)


def source_of(folder: Path, text: str) -> Path | None:
    """The folder of images, or the file that lists them, that a path means; None if there is none."""
    # Roboflow writes ../train/images for what is in train/images.
    for place in dict.fromkeys((text, text.removeprefix("../"))):
        path = folder / place
        if path.is_dir():
            return path / "images" if (path / "images").is_dir() else path
        if path.is_file() and path.suffix.lower() == ".txt":
            return path
    return None


def images_of(lister: Lister, sources: Iterable[Path], folder: Path) -> list[str]:
    """The images in folders, and in those in them, or that files list: their paths, absolute.

    Args:
        lister: Reads the folders.
        sources: Folders, or files with a path in each line.
        folder: What these paths are relative to; or to the folder of their file.
    """
    found: list[str] = []
    for source in sources:
        if source.is_file():
            found += _listed(source, folder)
            continue
        waiting = [source]
        while waiting:
            for entry, is_folder in lister.entries(waiting.pop()):
                if is_folder:
                    waiting.append(Path(entry.path))
                elif is_image(entry.name):
                    found.append(entry.path)
                else:
                    lister.other[escaped(Path(entry.name).suffix.lower())] += 1
    return sorted(dict.fromkeys(map(os.path.normpath, found)))


def _listed(file: Path, folder: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        _refuse(file, f"it cannot be read: {error}", "a path of an image in each line")
    texts = [line.strip() for line in lines if line.strip()]
    first = next(iter(texts), "")
    base = next((each for each in (file.parent, folder) if (each / first).is_file()), folder)
    return [os.path.join(base, text) for text in texts]  # noqa: PTH118 - once for each image


def _refuse(path: Path, what: str, hint: str, key: str = "root") -> NoReturn:
    raise Mistakes(Problem(f"{escaped(str(path))}: {what}", key, hint=hint))
