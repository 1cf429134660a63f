"""What data and augmentation are, looked at without training: a folder's files, a dataset, what a network will see.

It may import what a trial is made of and the pages of reports, and knows neither Ray nor MLflow.
"""
