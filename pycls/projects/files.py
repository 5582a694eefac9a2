"""What the projects share: the one task of a bundle, and the tables that are handed in."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prototxt import LabelError
from prototxt.files import write_file

if TYPE_CHECKING:
    from ..classify.bundle import Bundle
    from ..tasks import Task


def probabilities(bundle: Bundle, kind: str, files: Sequence[str]) -> tuple[Task, np.ndarray[Any, Any]]:
    """The one task of a bundle, and its calibrated probabilities [N, K] for images; LabelError if the bundle is of something else."""
    if [task.kind for task in bundle.tasks] != [kind]:
        has = ", ".join(f"{task.name} ({task.kind})" for task in bundle.tasks)
        raise LabelError(f"{bundle.folder}: has the tasks {has}, and one {kind} task is wanted; is it of another project?")
    (task,) = bundle.tasks
    logits = torch.from_numpy(bundle.predict(files).logits[task.name]).double()
    return task, task.probabilities(bundle.decisions[task.name].calibrated(logits)).numpy()


def write_csv(path: str | Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """Write a CSV, all or nothing; the number of rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_file(path, text.getvalue())
    return len(rows)
