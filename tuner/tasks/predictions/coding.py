"""COCO's run-length encoding of which pixels of an image belong to something."""

from typing import Any

import numpy as np

from tuner.tasks.predictions.base import RLE, Pixels


def encoded(mask: np.ndarray[Any, np.dtype[Any]]) -> RLE:
    """Encode a mask (H, W) of booleans."""
    from hotcoco import mask as coding

    code = coding.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def decoded(mask: RLE) -> Pixels:
    """Decode a mask, uint8 (H, W): 1 where it is, else 0."""
    from hotcoco import mask as coding

    pixels: Pixels = coding.decode(mask | {"counts": mask["counts"].encode()})
    return pixels
