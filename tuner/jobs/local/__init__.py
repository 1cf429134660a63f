"""What a command does with an experiment in this process, without Ray and MLflow: it trains one trial, of a file or
one that was recorded, or reads all of the data.
"""
