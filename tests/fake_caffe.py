"""A stand-in for pycaffe, by hand in numpy, for one net: InnerProduct `ip`, and a ReLU written in place. Copied as `caffe.py` by the tests."""

import numpy as np

from prototxt.weights import read_weights

TEST, TRAIN = 1, 0
__version__ = "fake 1.0"


def set_mode_cpu() -> None:
    """There is nothing else."""


class Blob:
    def __init__(self, *shape: int) -> None:
        self.reshape(*shape)

    def reshape(self, *shape: int) -> None:
        self.data, self.diff = np.zeros(shape, np.float32), np.zeros(shape, np.float32)


class Net:
    def __init__(self, prototxt: str, phase: int, weights: str) -> None:
        (layer,) = [layer for layer in read_weights(weights) if layer.name == "ip"]
        self.params = {"ip": [Blob(*blob.shape) for blob in layer.blobs]}
        for held, blob in zip(self.params["ip"], layer.blobs, strict=True):
            held.data[...] = np.reshape(blob.array, blob.shape)
        self.blobs = {"data": Blob(1, 4), "ip": Blob(1, 3)}
        self._layer_names = ["input", "ip", "relu"]
        self.top_names = {"input": ["data"], "ip": ["ip"], "relu": ["ip"]}

    def reshape(self) -> None:
        self.blobs["ip"].reshape(len(self.blobs["data"].data), 3)

    def clear_param_diffs(self) -> None:
        for blob in self.params["ip"]:
            blob.diff[...] = 0

    def _forward(self, start: int, end: int) -> None:
        out = self.blobs["ip"]
        for i in range(start, end + 1):
            if i == 1:
                weight, bias = self.params["ip"]
                out.data[...] = self.blobs["data"].data @ weight.data.T + bias.data
            if i == 2:
                np.maximum(out.data, 0, out=out.data)

    def forward(self) -> None:
        self._forward(0, 2)

    def backward(self) -> None:
        out = self.blobs["ip"]
        gradient = out.diff * (out.data > 0)
        self.params["ip"][0].diff[...] += gradient.T @ self.blobs["data"].data
        self.params["ip"][1].diff[...] += gradient.sum(0)
