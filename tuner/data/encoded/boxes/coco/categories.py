"""The classes of a dataset, by the categories of its annotation files."""

from tuner.data.encoded.boxes.coco.annotation_file import COCOFile, refuse
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem, allowed
from tuner.formatting import counted


def index_of_classes(files: list[COCOFile], classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names of the classes, and the index of each by the category's id; -1 for one that is not asked for.

    Args:
        files: The files of all sets, the first of the training set.
        classes: The names of the classes that are asked for, in their order; None for all, in the order of their ids.

    Raises:
        Mistakes: The files have different categories, or none of a name.
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
    names = tuple(first.categories.values())
    if classes is None:
        return names, {number: index for index, number in enumerate(first.categories)}
    for name in classes:
        if name not in names:
            what = f"{name!r} is no category of {first.path.name}"
            raise Mistakes(Problem(what, "classes", hint=allowed(name, names)))
    return classes, {
        number: classes.index(name) if name in classes else -1 for number, name in first.categories.items()
    }


def unasked(sets: dict[str, COCOFile], index: dict[int, int]) -> list[str]:
    """How many boxes are of classes that are not asked for, in a phrase; none if there are none."""
    left = {number for number, each in index.items() if each < 0}
    if not left:
        return []
    ids = (each.get("category_id") for file in sets.values() for each in file.annotations)
    count = sum(isinstance(each, int) and each in left for each in ids)
    return [f"{counted(count, 'box', 'boxes')} of {counted(len(left), 'other class', 'other classes')}"]
