"""How the images of a set reach the training: from memory, from a cache on disk, or decoded by worker processes."""
