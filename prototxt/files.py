"""Opening files: every way that it can fail becomes one of our errors; every write is all or nothing."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, overload

from .errors import FileProblem, FormatError

TEXT_LIMIT = 16 << 20  # bytes of a prototxt; the largest public one is below 2 MB
WINDOW = 1 << 14  # bytes of a file that are kept for reading tags and lengths


def read_file(path: str | Path, *, limit: int | None = None) -> bytes:
    """The bytes of a regular file; FileProblem where it is missing, a folder, unreadable or larger than `limit`."""
    path = check_file(path)
    try:
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise FileProblem(f"{path}: {size:,} bytes, more than the {limit:,} that a file of this kind may have")
        return path.read_bytes()
    except OSError as exc:
        raise FileProblem(f"{path}: cannot be read: {exc.strerror}") from exc


class FileBytes:
    """A file as a sequence of bytes, read where they are asked for; `error` is raised if it becomes shorter meanwhile.

    What a mapping would be, but that one ends the interpreter (SIGBUS) when its file is cut. Few bytes come from a window that is kept.
    `mapped` gives the mapping to who wants to look without copying.
    """

    def __init__(self, path: Path, error: type[FormatError]) -> None:
        self.path, self.error = path, error
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
            self._size = os.fstat(self._file).st_size
        except OSError as exc:
            raise FileProblem(f"{path}: cannot be read: {exc.strerror or exc}") from exc
        self._window, self._at = b"", 0
        self._mapping: mmap.mmap | None = None

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: int | slice) -> int | bytes:
        if isinstance(index, int):
            place = index - self._at
            if not 0 <= place < len(self._window):
                self._move(index)
                place = 0
            return self._window[place]
        start, stop, _ = index.indices(self._size)
        if self._at <= start and stop <= self._at + len(self._window):
            return self._window[start - self._at : stop - self._at]
        data = bytearray(max(0, stop - start))
        self.read_into(memoryview(data), start)
        return bytes(data)

    def _move(self, at: int) -> None:
        self._window, self._at = os.pread(self._file, WINDOW, at), at
        if not self._window:
            self._shorter()

    def read_into(self, target: memoryview, at: int) -> None:
        """Fill `target`, a view of bytes, from byte `at` on."""
        done = 0
        while done < len(target):
            got = os.preadv(self._file, [target[done : done + (1 << 30)]], at + done)
            if got <= 0:
                self._shorter()
            done += got

    def mapped(self) -> mmap.mmap:
        """The file in memory, none of it read yet; the error if it has become shorter. Whoever holds it must see to it that it stays so long."""
        if os.fstat(self._file).st_size < self._size:
            self._shorter()
        if self._mapping is None:
            self._mapping = mmap.mmap(self._file, self._size, access=mmap.ACCESS_READ)
        return self._mapping

    def _shorter(self) -> NoReturn:
        raise self.error(f"{self.path}: the file became shorter while it was read")

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def check_file(path: str | Path) -> Path:
    """`path`, if it is a regular file; otherwise FileProblem says what it is."""
    path = Path(path)
    try:
        if path.is_dir():
            raise FileProblem(f"{path}: is a folder; name the file in it")
        if not path.exists():
            raise FileProblem(f"{path}: no such file" + _near(path))
        if not path.is_file():
            raise FileProblem(f"{path}: is not a regular file")
    except (OSError, ValueError) as exc:
        raise FileProblem(f"{path!s:.200}: cannot be opened: {exc}") from exc
    return path


def _near(path: Path) -> str:
    from difflib import get_close_matches

    try:
        names = sorted(p.name for p in path.parent.iterdir())
    except OSError:
        return f"; the folder {path.parent} does not exist either" if not path.parent.exists() else ""
    near = get_close_matches(path.name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def find_file(name: str, beside: Path | None) -> Path:
    """A path from inside a prototxt: from the working directory as Caffe does, else from the file's own folder; within the root."""
    if beside is not None and not Path(name).exists():
        candidate = beside / name
        if candidate.exists():
            return inside(candidate)
    return inside(Path(name))


_roots: list[Path] = []


def confined_to() -> Path | None:
    """The folder to which `confine` keeps this process."""
    return _roots[0] if _roots else None


def confine(root: str | Path | None) -> None:
    """From now on no name that stands inside a file may lead out of the folder `root`, by `..` or by a link; None lifts this.

    It concerns sources, mean files, entries of lists, nets and weights of solvers, and what they write; not the files that the caller names.
    """
    _roots[:] = [Path(root).resolve()] if root is not None else []


def inside(path: Path, root: Path | None = None) -> Path:
    """`path`, unless it leads out of `root` or of the folder to which `confine` keeps the process: then FileProblem."""
    for folder in (*_roots, *((root.resolve(),) if root is not None else ())):
        try:
            within = path.resolve().is_relative_to(folder)
        except (OSError, RuntimeError, ValueError) as exc:
            raise FileProblem(f"{path!s:.200}: cannot be followed: {exc}") from exc
        if not within:
            raise FileProblem(f"{path!s:.200}: leads out of {folder}, to which the files of this net are confined")
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well: the old file or the new one, never half.

    OSError (a full disk, say) becomes FileProblem; the temporary file is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o666 & ~_umask())  # some writers make files that only their owner reads
        os.replace(temporary, path)
    except OSError as exc:
        raise FileProblem(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_file(path: str | Path, data: bytes | str) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
