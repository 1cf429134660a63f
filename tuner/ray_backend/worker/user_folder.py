"""The folder of an experiment, as a worker finds it: code of the user's own is imported from it, and runs in it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner import user_code

_STARTED_IN = Path.cwd()
"""The working directory that Ray gave this process: where it has unpacked what travels, if anything does."""

_entered: dict[str, Path] = {}
"""Where this process has found each folder: a worker trains one trial after the other."""


@dataclass(frozen=True)
class UserFolder:
    """Where code of the user's own is.

    Args:
        folder: The experiment's folder.
        behind: Folders that are searched last.
        root: The folder above, as the driver has it, that stands for the ``working_dir`` that Ray unpacks on every
            machine; None where nothing travels.
        inode: Number of `folder`, the same on all machines that share it.
        code: As `user_code.digests` gives it.
    """

    folder: Path
    behind: tuple[Path, ...] = ()
    root: Path | None = None
    inode: int = 0
    code: Mapping[str, str] = field(default_factory=dict)

    def enter(self) -> None:
        """Have this process find the code by the names that the driver has for it, and run it in its folder."""
        there = _entered.get(str(self.folder))
        if there is None:
            there = self.folder
            if self.root is not None and not self._is_shared():
                there = _STARTED_IN / self.folder.relative_to(self.root)
            user_code.add_folder(there, *self.behind, *([] if self.root is None else [_STARTED_IN]))
            user_code.unload_name_clashes({Path(name).parts[0].removesuffix(".py") for name in self.code})
            _entered[str(self.folder)] = there
        os.chdir(there)
        os.environ["TUNE_ORIG_WORKING_DIR"] = str(there)  # where scripts for Ray Tune look for their files

    def _is_shared(self) -> bool:
        """Whether this machine sees the folder itself, and the code in it is what it was when the job began."""
        try:
            here = {name: self.folder / name for name in self.code}
            is_same = all(user_code.digest(file) == self.code[name] for name, file in here.items() if file.is_file())
            return is_same and self.folder.stat().st_ino == self.inode
        except OSError:
            return False
