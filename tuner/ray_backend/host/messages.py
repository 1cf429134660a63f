"""What a proxy and a host send each other: tuples of a word and its values, in order, on one connection a trial."""

TRAIN = "train"
"""Proxy: the task of a trial, which the host is to train. It answers with what follows, and with `ENDED` last."""

WAITS = "waits"
"""Host: the trial waits for its place, as it does at first."""

BEGINS = "begins"
"""Host: the trial has its place, and trains."""

CHECKPOINT = "checkpoint"
"""Host: asks for a checkpoint to resume from: whether for the latest, else for the one before the last it asked for.

Proxy: its path, and its folder or why it is damaged; None for both if there is none. A folder lasts until the
host's next `CHECKPOINT`, `REPORTED` or `ENDED`. An exception instead is one that the trial is to raise."""

REPORTED = "reported"
"""Host: values, and the folder of a checkpoint or None. Proxy: whether the trial is to go on, or the exception of
the report, such as that of a full disk, which the trial is to raise."""

PRINTED = "printed"
"""Host: text that the trial has printed."""

ENDED = "ended"
"""Host: the entries of the last report; None for a trial that was stopped."""
