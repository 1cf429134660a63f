"""What happens inside a trial: the loop, evaluation, checkpoints, optimizers, learning-rate schedules.

It imports tasks, models, data, storage and the ground, and neither Ray, Optuna nor MLflow.
"""
