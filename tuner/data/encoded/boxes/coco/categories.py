"""The classes of a dataset, by the categories of its annotation files."""

from collections import Counter
from collections.abc import Iterable

from tuner.data.encoded.boxes.coco.annotation_file import COCOFile, refuse
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem, allowed
from tuner.formatting import counted, some


def index_of_classes(files: list[COCOFile], classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names of the classes, and the index of each by the category's id; -1 for one that is not asked for.

    A category without annotations has no index if another one has its name.

    Args:
        files: The files of all sets, the first of the training set.
        classes: The names of the classes that are asked for, in their order; None for all, in the order of their ids.

    Raises:
        Mistakes: The files have different categories, none of a name, or two of one name with annotations.
    """
    first = files[0]
    for other in files[1:]:
        if other.categories != first.categories:
            number = next(
                each
                for each in sorted(other.categories.keys() | first.categories.keys())
                if other.categories.get(each) != first.categories.get(each)
            )
            what = f"category {number} is {first.categories.get(number)} in {first.path.name}"
            what += f" and {other.categories.get(number)} here"
            refuse(other.path, other.key, escaped(what), "all sets have the same categories")
    categories = _of_different_names(files)
    names = tuple(categories.values())
    if classes is None:
        return names, {number: index for index, number in enumerate(categories)}
    for name in classes:
        if name not in names:
            what = f"{name!r} is no category of {first.path.name}"
            raise Mistakes(Problem(what, "classes", hint=allowed(name, names)))
    return classes, {number: classes.index(name) if name in classes else -1 for number, name in categories.items()}


def _of_different_names(files: list[COCOFile]) -> dict[int, str]:
    """The categories without those of which no set has an annotation, and which have the name of another one.

    Roboflow, for one, declares the name of a project beside its classes, and it may be that of one of these.
    """
    first, used = files[0], _used(files)
    found: dict[str, int] = {}
    for number in sorted(first.categories, key=lambda number: (number not in used, number)):
        name = first.categories[number]
        other = found.setdefault(name, number)
        if other != number and number in used:
            what = f"the categories {other} and {number} have the same name, {name}"
            hint = "give each category a name of its own, or all boxes of the two the same category_id"
            refuse(first.path, first.key, escaped(what), hint)
    return {number: name for number, name in first.categories.items() if found[name] == number}


def _used(files: Iterable[COCOFile]) -> Counter[int]:
    """The number of annotations of each category's id."""
    ids = (each.get("category_id") for file in files for each in file.annotations)
    return Counter(each for each in ids if isinstance(each, int))


def left_out(sets: dict[str, COCOFile], index: dict[int, int]) -> list[str]:
    """What is not used of the categories and their boxes, in phrases.

    Args:
        sets: The file of each set.
        index: What `index_of_classes` returns for them.
    """
    phrases = []
    if others := [number for number, each in index.items() if each < 0]:
        used = _used(sets.values())
        count = sum(used[number] for number in others)
        phrases.append(f"{counted(count, 'box', 'boxes')} of {counted(len(others), 'other class', 'other classes')}")
    categories = next(iter(sets.values())).categories
    if spare := [f"{number} {escaped(name)}" for number, name in categories.items() if number not in index]:
        what = counted(len(spare), "category without boxes", "categories without boxes")
        phrases.append(f"{what}, of the name of another one ({some(spare)})")
    return phrases
