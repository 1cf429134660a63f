"""Pictures of one to three handwritten digits, from scikit-learn's, and a CSV file that says which they show.

`python experiments/multilabel.py` writes them into the folder `several_digits` beside this file.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent / "several_digits"
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def write(folder: Path = FOLDER, count: int = 6000) -> Path:
    """Write so many pictures, the same each time, and return the CSV file. No two sets share a digit."""
    rng = np.random.default_rng(0)
    digits, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(digits))
    parts = np.split(order, (np.cumsum(list(SHARES.values())) * len(order)).astype(int)[:-1])
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with (folder / "digits.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "digits", "set"])
        for (name, share), part in zip(SHARES.items(), parts, strict=True):
            for number in range(round(share * count)):
                shown = rng.choice(part, size=rng.integers(1, 4), replace=False)
                path = f"pictures/{name}_{number:04}.png"
                Image.fromarray(picture(digits[shown].reshape(-1, 8, 8), rng)).save(folder / path)
                rows.writerow([path, " ".join(map(str, sorted({*labels[shown].tolist()}))), name])
    return folder / "digits.csv"


def picture(digits: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw digits (N, 8, 8) with values up to 16 into different ninths of 30x30 pixels, on noise."""
    drawn = rng.integers(0, 48, size=(30, 30))
    for digit, ninth in zip(digits, rng.permutation(9), strict=False):
        y, x = 10 * (ninth // 3) + rng.integers(3), 10 * (ninth % 3) + rng.integers(3)
        drawn[y : y + 8, x : x + 8] += (12 * digit).astype(int)
    return drawn.astype(np.uint8)


if __name__ == "__main__":
    print(f"wrote {write()}")
