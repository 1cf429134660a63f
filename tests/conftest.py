"""What several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def minimal() -> str:
    """An experiment with nothing in it that could be left out, but for its space. Data that is always there."""
    return """\
name: minimal
objective: val_accuracy
trial:
  data: {kind: digits}
  model: {kind: cnn}
space:
  optimizer.lr: {grid: [0.1, 0.01]}
search: {kind: grid}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a YAML file into `tmp_path` and returns its path."""

    def write_file(text: str, name: str = "experiment.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file
