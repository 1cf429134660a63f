"""Trained models as a service over HTTP.

`http` is what clients speak to, and `replica` is what computes. Between them is `models.Served`, so that neither knows
of Ray: `service` puts them together with `tuner.ray_backend.serving`, which runs replicas.
"""
