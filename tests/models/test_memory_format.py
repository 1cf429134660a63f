"""The memory format of a module on its device."""

import torch
from torch import nn

from tuner.models.memory_format import placed

CPU = torch.device("cpu")


def test_what_was_placed_once_stays_where_it_lies() -> None:
    """A teacher is placed for each of its students, while the recorded steps of others read it."""
    teacher = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(3, 2))
    placed(teacher, CPU)
    places = [each.data_ptr() for each in teacher.parameters()]
    placed(teacher, CPU)
    assert [each.data_ptr() for each in teacher.parameters()] == places
    assert teacher.get_parameter("1.weight").is_contiguous(memory_format=torch.channels_last)
