"""COCO's results: a list of all objects in all images."""

from pathlib import PurePath
from typing import TextIO

from tuner.deploy.about import About
from tuner.deploy.output.json_lines import JSONList
from tuner.deploy.result import Result


class COCOResults(JSONList):
    """COCO's results of detection, as ``loadRes`` of its tools takes them.

    ``image_id`` is the number that a file has for a name, as COCO's images have, else its path; of a frame of a video
    it is ``PATH#NUMBER``. ``category_id`` is that
    of the annotation files that the model has learnt from; if they had none, or an older version wrote its checkpoint,
    the place of the class among the model's, from 1. ``category_name`` is the name of the class.
    """

    def __init__(self, file: TextIO, about: About, has_frames: bool = False) -> None:
        super().__init__(file, about, has_frames)
        self._ids = {name: target.ids for name, target in about.signature.targets.items()}

    @classmethod
    def fits(cls, about: About) -> bool:
        return all(each.finds_objects for each in about.predictions.values())

    def write(self, result: Result) -> None:
        stem = PurePath(result.path).stem
        image = int(stem) if stem.isascii() and stem.isdecimal() else result.path
        if result.frame is not None:
            image = f"{result.path}#{result.frame}"
        for name, prediction in result.heads.items():
            ids = self._ids[name]
            for found in prediction.objects:
                left, top, right, bottom = found.box
                row = {
                    "image_id": image,
                    "category_id": ids[found.number] if found.number < len(ids) else found.number + 1,
                    "category_name": found.label,
                    "bbox": [left, top, right - left, bottom - top],
                    "score": found.score,
                }
                self._add(row if found.mask is None else row | {"segmentation": found.mask})
