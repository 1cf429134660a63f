import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuner import user_code
from tuner.errors import Mistakes, Problem
from tuner.ray_backend.cluster.working_dir import user_folder
from tuner.ray_backend.worker import user_folder as worker
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.user_code import files

Own = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def nothing_stays_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test begins with no folder and leaves no module of its own behind."""
    monkeypatch.setattr(user_code, "_folders", [])
    monkeypatch.setattr(user_code, "_last_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    own = {path.stem for path in tmp_path.rglob("*")}
    for name in set(sys.modules) - before:
        if name.split(".")[0] in own:
            del sys.modules[name]


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Writes a file of the user's beside their YAML file."""
    user_code.add_folder(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    return write


def refused(target: str) -> Problem:
    with pytest.raises(Mistakes) as caught:
        user_code.resolve_callable(target)
    [problem] = caught.value.problems
    assert problem.key == "target"
    return problem


class TestFinding:
    def test_a_module_beside_the_file(self, own: Own) -> None:
        own("mine_a.py", "def train(config):\n    return 7\n")
        assert user_code.resolve("mine_a:train")({}) == 7

    def test_a_module_in_a_package_beside_the_file_and_what_it_imports(self, own: Own) -> None:
        own("pkg_a/inner.py", "from beside_a import number\ndef train(config):\n    return number\n")
        own("beside_a.py", "number = 3\n")
        assert user_code.resolve("pkg_a.inner:train")({}) == 3

    def test_what_a_file_imports_when_it_runs(self, own: Own) -> None:
        own("late_a.py", "def train(config):\n    import later_a\n    return later_a.number\n")
        own("later_a.py", "number = 5\n")
        assert user_code.resolve("late_a:train")({}) == 5

    def test_what_is_installed(self) -> None:
        from torchvision.datasets import FakeData

        assert user_code.resolve("torchvision.datasets:FakeData") is FakeData

    def test_it_shadows_no_module_of_others(self, own: Own) -> None:
        own("shelve.py", "raise RuntimeError\n")  # a name of Python's own
        own("mine_b.py", "def train(config): ...\n")
        user_code.resolve("mine_b:train")
        import shelve

        assert str(user_code.folders()[0]) not in str(shelve.__file__)

    def test_the_newest_folder_comes_first(self, tmp_path: Path) -> None:
        for folder, number in (("old", 1), ("new", 2)):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "mine_c.py").write_text(f"def train(config): return {number}\n")
            user_code.add_folder(tmp_path / folder)
        assert user_code.resolve("mine_c:train")({}) == 2


class TestRefusals:
    def test_a_module_that_is_nowhere(self, own: Own, tmp_path: Path) -> None:
        own("mine_d.py", "")
        problem = refused("mine_e:train")
        assert problem.message == "there is no module 'mine_e'"
        assert str(tmp_path) in problem.hint and "did you mean mine_d? allowed: mine_d" in problem.hint

    def test_a_module_that_is_nowhere_in_a_package(self, own: Own) -> None:
        own("pkg_d/inner.py", "")
        assert refused("pkg_d.iner:train").message == "there is no module 'pkg_d.iner'"

    def test_a_file_where_a_module_should_be(self, own: Own) -> None:
        own("mine_f.py", "def train(config): ...\n")
        assert "did you mean mine_f?" in refused("mine_f.py:train").hint

    def test_a_name_that_the_module_does_not_have(self, own: Own, tmp_path: Path) -> None:
        own("mine_g.py", "from json import loads\ndef train(config): ...\ndef _hidden(): ...\nclass Net: ...\nn = 3\n")
        problem = refused("mine_g:trian")
        assert problem.message == f"{tmp_path}/mine_g.py has no 'trian'"
        assert problem.hint == "did you mean train? allowed: Net, train"

    def test_what_is_no_function(self, own: Own) -> None:
        own("mine_h.py", "number = 3\n")
        assert refused("mine_h:number").message == "mine_h:number is not a function: 3"

    @pytest.mark.parametrize(
        ("text", "words", "line"),
        [
            ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name", 2),  # not the line of json's
            ("x = 1\n\ndef f(:\n", "SyntaxError: invalid syntax", 3),
            ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2),
            ("import there_is_none\n", "ModuleNotFoundError: No module named 'there_is_none'", 1),
            ("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero", 2),
            ("from json import nothing\n", "ImportError: cannot import name 'nothing'", 1),
        ],
    )
    def test_a_module_that_raises_is_told_at_the_line_of_it_that_did(
        self, own: Own, tmp_path: Path, text: str, words: str, line: int
    ) -> None:
        own("mine_i.py", text)
        problem = refused("mine_i:train")
        assert problem.message.startswith(f"mine_i cannot be imported: {words}")
        assert problem.message.endswith(f"({tmp_path}/mine_i.py:{line})")

    def test_a_file_with_the_name_of_a_module_that_is_loaded_already(self, own: Own, tmp_path: Path) -> None:
        import json

        own("json.py", "def train(config): ...\n")
        problem = refused("json:train")
        assert f"{tmp_path}/json has the name of a module that is loaded already: {json.__file__}" in problem.message
        assert problem.hint == "rename it"

    def test_a_module_is_right_once_its_mistake_is_mended(self, own: Own) -> None:
        own("mine_j.py", "1 / 0\n")
        refused("mine_j:train")
        own("mine_j.py", "def train(config):\n    return 1  # mended\n")
        assert user_code.resolve("mine_j:train")({}) == 1


class TestFiles:
    def test_are_those_of_the_users_own_imported_by_now_or_late(self, own: Own, tmp_path: Path) -> None:
        own("mine_f.py", "import torch\nfrom beside_f import number\ndef net():\n    import pkg_f.late\n")
        own("beside_f.py", "number = 3\n")
        own("pkg_f/late.py", "")
        own("another_f.py", "")
        found = files.files_of(["mine_f:net", "torchvision.datasets:FakeData"])
        assert found == {tmp_path / name for name in ("mine_f.py", "beside_f.py", "pkg_f/late.py")}

    def test_of_what_is_on_the_path_elsewhere_count_too(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere_f.py").write_text("def net(): ...\n")
        sys.path.append(str(tmp_path))
        assert files.files_of(["elsewhere_f:net"]) == {tmp_path / "elsewhere_f.py"}

    def test_of_the_packages_that_it_lies_in_count_too(self, own: Own, tmp_path: Path) -> None:
        own("pkg_g/__init__.py", "from pkg_g.first import number\n")
        own("pkg_g/first.py", "number = 3\n")
        own("pkg_g/second.py", "def net(): ...\n")
        names = ("__init__.py", "first.py", "second.py")
        assert files.files_of(["pkg_g.second:net"]) == {tmp_path / "pkg_g" / name for name in names}

    def test_of_ours_and_of_packages_count_none_wherever_the_folder_lies(self) -> None:
        user_code.add_folder(Path("/"), Path(user_code.__file__).parents[2])
        assert files.files_of(["torchvision.datasets:FakeData", "tuner.models.cnn:CNN"]) == set()


class TestWorking:
    """The folder that code runs in, and what is found behind it."""

    def test_is_the_experiments_while_a_module_is_imported_and_called(self, own: Own, tmp_path: Path) -> None:
        before = Path.cwd()
        (tmp_path / "words.txt").write_text("found")
        own("mine_w.py", "from pathlib import Path\nwords = Path('words.txt').read_text()\n")
        assert user_code.resolve("mine_w:words") == "found"
        assert Path.cwd() == before
        with user_code.in_experiment_folder():
            assert Path.cwd() == tmp_path
        assert Path.cwd() == before

    def test_is_that_of_the_newest_experiment(self, tmp_path: Path) -> None:
        for name in ("a", "b", "a"):
            (tmp_path / name).mkdir(exist_ok=True)
            user_code.add_folder(tmp_path / name)
        assert user_code.folders() == (tmp_path / "a", tmp_path / "b")

    def test_a_package_where_the_command_is_typed_is_found_behind_it(self, tmp_path: Path) -> None:
        (tmp_path / "above_w").mkdir()
        (tmp_path / "above_w" / "inner.py").write_text("def train(config): return 4\n")
        (tmp_path / "folder").mkdir()
        (tmp_path / "json").mkdir()  # of no module: it hides none
        user_code.add_folder(tmp_path / "folder", tmp_path)
        assert user_code.resolve("above_w.inner:train")({}) == 4
        assert files.digests(["above_w.inner:train"]).keys() == {"above_w/inner.py"}
        assert callable(user_code.resolve("json:loads"))

    def test_comes_before_what_is_installed_and_behind_what_is_pythons_own(self, own: Own, tmp_path: Path) -> None:
        own("unshelved.py", "def train(config): ...\n")
        at = sys.path.index(str(tmp_path))
        assert at > sys.path.index(sysconfig.get_path("stdlib"))
        assert at < next(place for place, path in enumerate(sys.path) if Path(path).name == "site-packages")


def test_a_name_that_only_a_worker_has_loaded_is_the_users(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    import code  # as a worker has, by way of its debugger, and the driver has not

    monkeypatch.setitem(sys.modules, "code", code)
    own("code.py", "def train(config): return 5\n")
    user_code.unload_name_clashes(["code", "not_loaded"])
    assert user_code.resolve("code:train")({}) == 5


class TestWorkers:
    """How a worker finds the folder."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TUNE_ORIG_WORKING_DIR", "")
        monkeypatch.chdir(tmp_path)
        for place in ("root/folder", "unpacked/folder"):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "mine_u.py").write_text("def train(config): ...\n")
        monkeypatch.setattr(worker, "_STARTED_IN", tmp_path / "unpacked")
        monkeypatch.setattr(worker, "_entered", {})
        user_code.add_folder(tmp_path / "root" / "folder")
        return tmp_path / "root" / "folder"

    def entered(self, told: UserFolder) -> Path:
        told.enter()
        assert os.environ["TUNE_ORIG_WORKING_DIR"] == str(Path.cwd())
        assert user_code.folders()[0] == Path.cwd()
        return Path.cwd()

    def test_where_nothing_travels_it_is_the_folder_itself(self, folder: Path) -> None:
        assert self.entered(user_folder(["mine_u:train"], None)) == folder

    def test_where_it_is_shared_it_is_the_folder_itself(self, folder: Path) -> None:
        assert self.entered(user_folder(["mine_u:train"], folder.parent)) == folder

    def test_where_it_is_another_folder_it_is_what_has_travelled(self, folder: Path) -> None:
        told = user_folder(["mine_u:train"], folder.parent)
        folder.rename(folder.with_name("old"))
        folder.mkdir()
        assert self.entered(told) == folder.parents[1] / "unpacked" / "folder"

    def test_where_code_was_changed_meanwhile_it_is_what_has_travelled(self, folder: Path) -> None:
        told = user_folder(["mine_u:train"], folder.parent)
        (folder / "mine_u.py").write_text("def train(config): return 2\n")
        assert self.entered(told) == folder.parents[1] / "unpacked" / "folder"


class TestMaking:
    """What may be called to make a model or a dataset."""

    @pytest.mark.parametrize(
        "target", ["torch.nn:Linear", "torch:rand", "torchvision.datasets:FakeData", "sklearn.datasets:load_digits"]
    )
    def test_what_packages_have(self, target: str) -> None:
        assert user_code.resolve_factory(target) is user_code.resolve(target)

    @pytest.mark.parametrize("name", ["Net", "make", "part"])
    @pytest.mark.parametrize("module", ["mine_m", "shelve"])  # a name of Python's own that nobody has loaded
    def test_what_is_the_users_own(self, own: Own, module: str, name: str) -> None:
        text = "from functools import partial\nclass Net: ...\ndef make(): ...\npart = partial(Net)\n"
        own(f"{module}.py", text)
        assert user_code.resolve_factory(f"{module}:{name}") is user_code.resolve(f"{module}:{name}")

    @pytest.mark.parametrize(
        "target",
        [
            "os:system",
            "subprocess:Popen",
            "mine_n:run",
            "mine_n:partial",
            "tuner.spec.experiment:load",
            "antigravity:x",
        ],
    )
    def test_what_makes_neither(self, own: Own, target: str) -> None:
        own("mine_n.py", "from functools import partial\nfrom os import system as run\n")
        with pytest.raises(Mistakes, match="it is not called"):
            user_code.resolve_factory(target)
        assert "antigravity" not in sys.modules  # which would open a browser
