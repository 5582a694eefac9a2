"""Runs inside the interpreter that has pycaffe: `python caffe_worker.py FOLDER`. It may be an old one: numpy and caffe alone, no package of ours.

FOLDER has job.json, feed.npz and, for a seeded backward pass, diffs.npz; it gets result.json, and one .npy for each array.
"""

# mypy: ignore-errors
import json
import os
import sys

os.environ.setdefault("GLOG_minloglevel", "2")
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]  # no file here is meant

import numpy as np  # noqa: E402


def main(folder):
    """Do what job.json asks."""
    import caffe

    with open(os.path.join(folder, "job.json")) as f:
        job = json.load(f)
    result = {"version": getattr(caffe, "__version__", "")}
    if job["ask"] == "train":
        saver = Saver(folder)
        result["losses"] = train(caffe, job, saver)
        result["files"] = saver.files
    elif job["ask"] != "version":
        net = build(caffe, job)
        feed(net, np.load(os.path.join(folder, "feed.npz")))
        saver = Saver(folder)
        if job["ask"] == "forward":
            forward(net, set(job["wanted"]), saver)
        else:
            backward(net, np.load(os.path.join(folder, "diffs.npz")) if job["seeded"] else {}, saver)
        result["files"] = saver.files
    with open(os.path.join(folder, "result.json"), "w") as f:
        json.dump(result, f)


def build(caffe, job):
    """The net in its phase."""
    caffe.set_mode_cpu()
    phase = caffe.TEST if job["phase"] == "TEST" else caffe.TRAIN
    more = {}
    if job["stages"] or job["level"]:
        more = {"stages": job["stages"], "level": job["level"]}
    if job["weights"]:
        return caffe.Net(job["prototxt"], phase, weights=job["weights"], **more)
    return caffe.Net(job["prototxt"], phase, **more)


def feed(net, arrays):
    """Fill the inputs, reshaped to what is fed."""
    for name in arrays.files:
        net.blobs[name].reshape(*arrays[name].shape)
    net.reshape()
    for name in arrays.files:
        net.blobs[name].data[...] = arrays[name]


class Saver:
    """Writes arrays as .npy files and remembers which is which."""

    def __init__(self, folder):
        self.folder, self.files = folder, {}

    def keep(self, name, value):
        """Write one array; a later one of the same name replaces it."""
        file = self.files.setdefault(name, f"array_{len(self.files)}.npy")
        np.save(os.path.join(self.folder, file), np.array(value, dtype=np.float32))


def forward(net, wanted, saver):
    """Layer by layer; a blob that is written again was `name@version` before."""
    tops = net.top_names
    writes, last = {}, {}
    for layer in net._layer_names:
        for top in tops[layer]:
            last[top] = last.get(top, -1) + 1
    for i, layer in enumerate(net._layer_names):
        net._forward(i, i)
        for top in tops[layer]:
            version = writes[top] = writes.get(top, -1) + 1
            name = top if version == last[top] else f"{top}@{version}"
            if name in wanted:
                saver.keep(name, net.blobs[top].data)


def backward(net, diffs, saver):
    """One forward and one backward pass from zeroed gradients."""
    net.clear_param_diffs()
    net.forward()
    for name in getattr(diffs, "files", ()):
        net.blobs[name].diff[...] = diffs[name]
    net.backward()
    for layer, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            saver.keep(f"{layer}/{i}", blob.diff)


def train(caffe, job, saver):
    """Steps of a solver: the loss of each, and the weights behind the last."""
    caffe.set_mode_cpu()
    os.chdir(os.path.dirname(job["solver"]))
    solver = caffe.get_solver(job["solver"])
    if job["weights"]:
        solver.net.copy_from(job["weights"])
    losses = []
    for _ in range(job["steps"]):
        solver.step(1)
        weights = solver.net.blob_loss_weights
        losses.append(sum(float(np.sum(solver.net.blobs[name].data)) * weights[name] for name in weights if weights[name]))
    for layer, blobs in solver.net.params.items():
        for i, blob in enumerate(blobs):
            saver.keep(f"{layer}/{i}", blob.data)
    return losses


if __name__ == "__main__":
    main(sys.argv[1])
