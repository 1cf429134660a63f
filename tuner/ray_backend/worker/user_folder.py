"""The experiment's folder on a worker: code of the user's own is imported from it and runs in it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner import user_code
from tuner.user_code.files import digest

_STARTED_IN = Path.cwd()
"""The working directory in which Ray started this process: the unpacked ``working_dir``, if there is one."""

_entered: dict[str, Path] = {}
"""The path of each folder that this process entered: a worker trains several trials in turn."""


@dataclass(frozen=True)
class UserFolder:
    """The folders with code of the user's own.

    Args:
        folder: The experiment's folder.
        behind: Folders that imports search last.
        root: The driver's folder whose files Ray unpacks on every node as ``working_dir``; None if none is uploaded.
        inode: The inode number of `folder`, the same on all nodes that share it.
        code: The digest of each file of code, from `tuner.user_code.files.digests`.
    """

    folder: Path
    behind: tuple[Path, ...] = ()
    root: Path | None = None
    inode: int = 0
    code: Mapping[str, str] = field(default_factory=dict)

    def enter(self) -> None:
        """Make the code importable by the same names as on the driver, and the folder the working directory."""
        local = _entered.get(str(self.folder))
        if local is None:
            local = self.folder
            if self.root is not None and not self._is_shared():
                local = _STARTED_IN / self.folder.relative_to(self.root)
            user_code.add_folder(local, *self.behind, *([] if self.root is None else [_STARTED_IN]))
            user_code.unload_name_clashes({Path(name).parts[0].removesuffix(".py") for name in self.code})
            _entered[str(self.folder)] = local
        os.chdir(local)
        os.environ["TUNE_ORIG_WORKING_DIR"] = str(local)  # where scripts for Ray Tune look for their files

    def _is_shared(self) -> bool:
        """Whether this node shares the folder with the driver, and its code has not changed since the job began."""
        try:
            files = {name: self.folder / name for name in self.code}
            is_same = all(digest(file) == self.code[name] for name, file in files.items() if file.is_file())
            return is_same and self.folder.stat().st_ino == self.inode
        except OSError:
            return False
