"""Models with pretrained weights, which are torchvision's and timm's."""
