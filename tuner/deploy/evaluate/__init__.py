"""Evaluation of a trained model on any data: `run` is what ``tuner evaluate`` does."""
