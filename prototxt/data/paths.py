"""Names inside a net -> paths: from the working directory as Caffe looks, else from the net's own folder; `root` confines them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..files import inside


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the names in a net are looked for. With a `root`, a name that leads out of it, by `..` or by a link, is refused."""

    folder: Path | None = None
    root: Path | None = None

    def find(self, name: str, beside: Path | None = None) -> Path:
        """The first that exists of `name`, the net's folder / `name` and `beside` / `name`; `name` itself if none does."""
        if not name:
            raise DataError("names no file: the name is empty")
        tries = [Path(name), *(folder / name for folder in (self.folder, beside) if folder is not None)]
        return self.inside(next((path for path in tries if _exists(path)), tries[0]))

    def inside(self, path: Path) -> Path:
        """`path`, unless there is a root and it leads out of it."""
        return inside(path, self.root)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a NUL in it
        return False
