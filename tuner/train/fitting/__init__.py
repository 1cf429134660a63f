"""What is measured of a trial before it trains: the size of its batches, and its learning rate.

It imports what `tuner.train` does. Models that are trained here are thrown away.
"""
