import re
from pathlib import Path

import pytest

from tuner.spec.loader import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_its_yaml_is_the_main_job(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "readme.yaml").write_text(block)
    assert load(tmp_path / "readme.yaml") == load(ROOT / "experiments" / "mnist_grid.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_and_pictures_are_there(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    files = re.findall(r"`((?:tuner|experiments|tests|docs|benchmarks)/[\w./]+)`", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in files if not (ROOT / name).exists()]
    assert not missing
    if page == PAGES[0]:
        assert links and files
    if page.name == "structure.md":
        assert len(files) > 40


def test_the_gate_finds_its_two_commands() -> None:
    assert len(re.findall(r"^pip install -c constraints.txt", README, flags=re.MULTILINE)) == 2
