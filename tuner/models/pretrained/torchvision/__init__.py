"""The models of torchvision, by name, with or without its weights."""
