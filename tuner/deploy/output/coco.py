"""COCO's results: a list of all objects in all images."""

from pathlib import PurePath

from tuner.deploy.about import About
from tuner.deploy.output.json_lines import JSONList
from tuner.deploy.result import Result


class COCOResults(JSONList):
    """COCO's results of detection, as ``loadRes`` of its tools takes them.

    A checkpoint does not know the ids of COCO's files: ``image_id`` is the number that a file has for a name, as COCO's
    images have, else its path; ``category_id`` is that of the class among the model's, from 1, and ``category_name``
    its name.
    """

    @classmethod
    def fits(cls, about: About) -> bool:
        return all(each.finds_objects for each in about.predictions.values())

    def write(self, result: Result) -> None:
        stem = PurePath(result.path).stem
        image = int(stem) if stem.isascii() and stem.isdecimal() else result.path
        for prediction in result.heads.values():
            for found in prediction.objects:
                left, top, right, bottom = found.box
                row = {
                    "image_id": image,
                    "category_id": found.number + 1,
                    "category_name": found.label,
                    "bbox": [left, top, right - left, bottom - top],
                    "score": found.score,
                }
                self._add(row if found.mask is None else row | {"segmentation": found.mask})
