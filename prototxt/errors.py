"""The errors of Caffe's files. Each says where, what is wrong, and where it can, the way out.

DecantError                  everything that a user can cause, in any of our packages
  FormatError                a file is not what it should be
    CaffeTextError           a prototxt: path:line:column, the line, a caret
    WeightsError             a .caffemodel, .h5 or .safetensors
    DataError                a database, an HDF5 list, an image list, a mean file
      LabelError             a label file, or images that it names
  FileProblem                a file is missing, empty, a folder, or may not be read
  UpgradeError               a V0 or V1 file that has no meaning as a net of today
  NetError                   a net that Caffe refuses: rules, wiring, shapes, parameters
    UnsupportedLayer         a layer type without a rule
    ShapeUnknown             a data layer whose shapes stand in data that are not at hand
  SolverError                a solver that Caffe refuses
  TaskError                  a task, a head or a loss that cannot be
  ConfigError                a config of `decant classify`: a key, a value, or what it says of the data
  TrainingError              a training that cannot go on: a loss that is not finite, a checkpoint of another run
"""

from __future__ import annotations

from pathlib import Path


class DecantError(Exception):
    """Root of all errors that a user can cause."""


class FormatError(DecantError):
    """A file is not what it should be."""


class CaffeTextError(FormatError):
    """A place in a prototxt: `net.prototxt:41:13: 'stride' expects a whole number, found 'two'`."""

    def __init__(self, path: str | Path, line: int, column: int, problem: str, excerpt: str = "") -> None:
        super().__init__(f"{path}:{line}:{column}: {problem}" + (f"\n{excerpt}" if excerpt else ""))
        self.path, self.line, self.column, self.problem = path, line, column, problem


class WeightsError(FormatError):
    """A file of weights that cannot be read, or does not fit the net."""


class DataError(FormatError):
    """A source of data that cannot be read, or does not fit its layer."""


class LabelError(DataError):
    """A label file that cannot be read, or images that it names."""


class FileProblem(DecantError):
    """A file is missing, empty, a folder, or may not be read."""


class UpgradeError(DecantError):
    """A V0 or V1 file that has no meaning as a net of today."""


class NetError(DecantError):
    """A net that Caffe refuses."""


class UnsupportedLayer(NetError):
    """One or more layers whose type has no rule."""


class ShapeUnknown(NetError):
    """A data layer whose shapes stand in data that are not at hand."""


class SolverError(DecantError):
    """A solver that Caffe refuses."""


class TaskError(DecantError):
    """A task, a head, a loss or a sampler that cannot be as it is asked for."""


class ConfigError(DecantError):
    """A config of `decant classify`: a key, a value, or what it says of the data."""


class TrainingError(DecantError):
    """A training that cannot go on: a loss that is not finite, a checkpoint of another run."""
