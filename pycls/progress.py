"""What a long command shows: a bar on a terminal, under the lines it prints; elsewhere the lines alone, without colour."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """`say` prints a line; `at` moves the bar, if there is one. A quiet one does neither."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    def say(self, line: str) -> None:
        """Print one line to stdout."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)  # noqa: T201

    def at(self, done: int, note: str = "") -> None:
        """How far it is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)

    @contextmanager
    def bar(self, total: int, done: int = 0, title: str = "") -> Iterator[Progress]:
        """A bar while the block runs, where stdout is a terminal."""
        if self.quiet or not sys.stdout.isatty():
            yield self
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Bar(*columns) as self._bar:
            self._task = self._bar.add_task(title, total=total, completed=done, note="")
            try:
                yield self
            finally:
                self._bar = None


def duration(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
