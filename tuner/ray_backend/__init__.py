"""Everything that imports Ray: the cluster, Ray Tune's control loop and schedulers; what runs in workers is in
`worker`, and what they are forked from in `fork_server`.

Private names of Ray stand in `tune_internals`. Imports tracking, trials and what is below them.
"""
