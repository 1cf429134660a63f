"""Trained models at work. What all of it shares is in `pipeline`: decode, preprocess, batch, run, postprocess."""
