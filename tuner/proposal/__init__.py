"""An experiment for data that somebody has: what the data are, what this machine can do in a time, and the file.

To recognize another layout of data, add a function to `DETECTORS` in `tuner/proposal/layouts.py`.
"""
