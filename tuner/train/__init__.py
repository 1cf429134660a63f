"""What happens inside a trial: the loop, evaluation, checkpoints, optimizers, learning-rate schedules.

Knows tasks, models and data; knows neither Ray, Optuna nor MLflow. Imports those three, storage and the ground.
"""
