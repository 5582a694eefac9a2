"""Opening files: every way that it can fail becomes one of our errors; every write is all or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FileProblem

TEXT_LIMIT = 256 << 20  # bytes of a prototxt; the largest public one is below 2 MB


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
    """A path from inside a prototxt: from the working directory as Caffe does, else from the file's own folder."""
    if beside is not None and not Path(name).exists():
        candidate = beside / name
        if candidate.exists():
            return candidate
    return Path(name)


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
