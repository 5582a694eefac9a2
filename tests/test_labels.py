"""Label files and the readers of other lists: what each row becomes, and what is refused, with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt import DecantError, LabelError
from pycls.classify.inspection import inspect, text
from pycls.labels import joined, read_label_file, write_label_file
from pycls.readers import READERS, read_labels

HEADER = "#path\tgender:class[male,female]\that:binary\tage:age[0..100+]\torganelle:multi[3]\tcamera:group"
ROWS = ["a b.jpg\tfemale\t1\t31\t0 NA 1\tnorth", "c.jpg\tNA\t0\t?\tNA\tsouth", "d.jpg\tmale\t\t100+\t1 1 0\tnorth", "e.jpg\tmale\tNA\t130\t0 0 0\t"]


def written(folder: Path, *lines: str, name: str = "labels.tsv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_typed_file_and_back(tmp_path: Path) -> None:
    table = read_label_file(written(tmp_path, HEADER, *ROWS))
    assert [c.name for c in table.columns] == ["gender", "hat", "age", "organelle"]
    assert table.paths[0] == "a b.jpg"
    assert table.places[3] == f"{tmp_path}/labels.tsv:5"
    assert table.values["gender"].tolist() == [1, 0, 0, 0]
    assert table.present["gender"].tolist() == [True, False, True, True]
    assert table.present["hat"].tolist() == [True, True, False, False]
    assert table.values["age"].tolist() == [31, 0, 100, 100]
    assert table.values["organelle"].tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert table.present["organelle"].tolist() == [[True, False, True], [False] * 3, [True] * 3, [True] * 3]
    assert table.notes["camera"].tolist() == ["north", "south", "north", ""]
    write_label_file(table, tmp_path / "again.tsv")
    again = read_label_file(tmp_path / "again.tsv")
    assert again.columns == table.columns
    for name, values in table.values.items():
        np.testing.assert_array_equal(again.values[name], values)
        np.testing.assert_array_equal(again.present[name], table.present[name])


def test_the_lectures_list_is_read_as_it_is(tmp_path: Path) -> None:
    table = read_label_file(written(tmp_path, "\ufeffa.jpg\t0 0 1 1\r", "", "b c.jpg\t1\tNA\t0\t?\r"))
    assert table.columns[0].kind == "multilabel"
    assert table.values["labels"].tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]
    assert table.present["labels"].tolist() == [[True] * 4, [True, False, True, False]]


BAD: dict[str, tuple[list[str], str]] = {
    "a row too short": ([HEADER, ROWS[0], "x.jpg\tmale\t1"], "labels.tsv:3: 3 columns, and the header has 6"),
    "every wrong row is named": ([HEADER, "x.jpg\tmale", ROWS[0], "y.jpg\tmale"], "labels.tsv:4: 2 columns"),
    "a class that is not": (
        [HEADER, ROWS[0].replace("female", "femal")],
        "labels.tsv:2: task 'gender' takes one of 2 classes, not 'femal'; did you mean 'female'?",
    ),
    "-1 is not guessed": ([HEADER, ROWS[0].replace("\t1\t", "\t-1\t")], "declare `missing: [-1]` or `negative: [-1]`"),
    "ragged rows": (["a.jpg\t0 1 0", "b.jpg\t0 1 0", "c.jpg\t0 1"], "labels.tsv:3: 2 values, and the first row has 3"),
    "ragged in a typed file": ([HEADER, ROWS[0].replace("0 NA 1", "0 NA")], "labels.tsv:2: task 'organelle' has 3 labels, and the row has 2 values"),
    "an age of nobody": ([HEADER, ROWS[0].replace("31", "-3")], "takes 0 to 100+ or NA, not '-3'"),
    "a kind that is not": (
        [HEADER.replace("binary", "binery"), ROWS[0]],
        "labels.tsv:1: the column 'hat:binery' has no kind that we know; did you mean 'binary'?",
    ),
    "no classes": ([HEADER.replace("[male,female]", ""), ROWS[0]], "class wants its classes"),
    "a name twice": ([HEADER.replace("hat", "gender"), ROWS[0]], "'gender' twice"),
    "a header alone": ([HEADER], "no row"),
    "nothing": ([""], "is empty"),
    "a value that is no label": (["a.jpg\t0 2 0"], "labels.tsv:1: task 'labels' takes 0, 1 or NA, not '2'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_the_line(name: str, tmp_path: Path) -> None:
    lines, says = BAD[name]
    with pytest.raises(DecantError) as caught:
        read_label_file(written(tmp_path, *lines))
    assert says in str(caught.value)


CELEBA = ["2", "Eyeglasses Male Smiling", "000001.jpg -1  1  1", "000002.jpg  1 -1 -1"]
TRAPS: dict[str, Any] = {
    "images": [{"id": "i1", "file_name": "a.jpg", "location": 7, "seq_id": "s"}, {"id": "i2", "file_name": "b.jpg", "location": 8, "seq_id": "t"}],
    "annotations": [{"image_id": "i2", "category_id": 9}],
    "categories": [{"id": 9, "name": "deer"}, {"id": 0, "name": "empty"}],
}

# format, lines, options -> {task: values with None for NA}
READ: dict[str, tuple[str, list[str], dict[str, Any], dict[str, list[Any]]]] = {
    "caffe, a class": ("caffe", ["a b.jpg 3", "c.jpg 0"], {}, {"label": [3, 0]}),
    "caffe, tasks": ("caffe", ["a.jpg 1 -1", "b.jpg 0 2"], {"tasks": ["x", "y"], "missing": ["-1"]}, {"x": [1, 0], "y": [None, 2]}),
    "caffe, labels": ("caffe", ["a b.jpg 1 0 1", "b.jpg 0 0 1"], {}, {"labels": [[1, 0, 1], [0, 0, 1]]}),
    "paddle, labels": ("paddle", ["a b.jpg\t1,0,-1", "b.jpg\t0,0,1"], {"missing": ["-1"]}, {"labels": [[1, 0, None], [0, 0, 1]]}),
    "paddle, a class": ("paddle", ["a.jpg 2", "b.jpg 0"], {"classes": ["x", "y", "z"]}, {"label": [2, 0]}),
    "deepdetect": ("deepdetect", ["a.jpg 1 -1", "b.jpg 0 1"], {"missing": ["-1"]}, {"labels": [[1, None], [0, 1]]}),
    "celeba": ("celeba", CELEBA, {"negative": ["-1"]}, {"attributes": [[0, 1, 1], [1, 0, 0]]}),
    "celeba, tasks": ("celeba", CELEBA, {"negative": ["-1"], "as_tasks": True}, {"Eyeglasses": [0, 1], "Male": [1, 0], "Smiling": [1, 0]}),
    "hpa": ("hpa", ["Id,Target", "x,2 0", "y,1"], {"classes": ["p", "q", "r"]}, {"organelle": [[1, 0, 1], [0, 1, 0]]}),
    "camera traps": ("camera_traps", [json.dumps(TRAPS)], {}, {"animal": [None, 1]}),
    "camera traps, labels": ("camera_traps", [json.dumps(TRAPS)], {"several": True}, {"animal": [[None, None], [0, 1]]}),
}


@pytest.mark.parametrize("name", READ)
def test_lists_of_other_projects(name: str, tmp_path: Path) -> None:
    format, lines, options, wanted = READ[name]
    table = read_labels(written(tmp_path, *lines), format, **options)
    for task, values in wanted.items():
        known = np.array([[v is not None for v in row] if isinstance(row, list) else row is not None for row in values])
        np.testing.assert_array_equal(table.present[task], known)
        np.testing.assert_array_equal(
            table.values[task], np.array(values, dtype=object) * 1 if known.all() else np.where(known, np.array(values, object), 0).astype(float)
        )


def test_what_the_lists_say_beside_labels(tmp_path: Path) -> None:
    traps = read_labels(written(tmp_path, json.dumps(TRAPS), name="t.json"), "camera_traps")
    assert traps.notes["location"].tolist() == ["7", "8"]
    assert traps.columns[0].classes == ("empty", "deer")
    assert traps.places[1].endswith("t.json: images[1]")
    parts = written(tmp_path, "000002.jpg 2", "000001.jpg 0", name="parts.txt")
    people = written(tmp_path, "000001.jpg 77", "000002.jpg 78", name="people.txt")
    faces = read_labels(written(tmp_path, *CELEBA), "celeba", negative=["-1"], partition=str(parts), identities=str(people))
    assert faces.notes["split"].tolist() == ["train", "test"]
    assert faces.split("test").paths == ("000002.jpg",)
    assert faces.notes["identity"].tolist() == ["77", "78"]
    cells = read_labels(written(tmp_path, "Id,Target", "x,2 0"), "hpa")
    assert cells.files(0) == ["x_red.png", "x_green.png", "x_blue.png", "x_yellow.png"]


def test_folders(tmp_path: Path) -> None:
    for file in ("train/cat/1.png", "train/dog/sub/2.jpg", "val/dog/3.png", "val/dog/notes.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    table = read_labels(tmp_path, "folders", splits=["train", "val"])
    assert table.paths == ("train/cat/1.png", "train/dog/sub/2.jpg", "val/dog/3.png")
    assert table.values["class"].tolist() == [0, 1, 1]
    assert table.columns[0].classes == ("cat", "dog")
    assert len(table.split("val")) == 1


REFUSED: dict[str, tuple[str, list[str], dict[str, Any], str]] = {
    "caffe, ragged": ("caffe", ["a.jpg 1 2", "b.jpg 1"], {}, "labels.tsv:2: 1 labels, and the first row has 2"),
    "caffe, -1": ("caffe", ["a.jpg 1", "b.jpg -1"], {}, "declare"),
    "caffe, a float": ("caffe", ["a.jpg 1", "b.jpg 1.5"], {}, "not '1.5'"),
    "celeba, -1 is told": ("celeba", CELEBA, {}, "labels.tsv:3"),
    "celeba, cut off": ("celeba", ["3", *CELEBA[1:]], {"negative": ["-1"]}, "says 3 rows, and there are 2"),
    "both meanings": ("celeba", CELEBA, {"negative": ["-1"], "missing": ["-1"]}, "one of the two"),
    "hpa, label 28": ("hpa", ["Id,Target", "x,3 28"], {}, "labels.tsv:2: the label '28', and there are 0 to 27"),
    "traps, lost": ("camera_traps", [json.dumps(TRAPS | {"annotations": [{"image_id": "i9", "category_id": 9}]})], {}, "image_id 'i9'"),
    "traps, no JSON": ("camera_traps", ["{"], {}, "no JSON"),
    "paddle, no cut": ("paddle", ["a.jpg"], {}, "labels.tsv:1: no path and label"),
    "no such format": ("coco", ["x"], {}, "no reader is called 'coco'"),
    "no such option": ("caffe", ["a.jpg 1"], {"mising": []}, "did you mean 'missing'?"),
}


def test_a_minus_one_comes_with_the_counts_of_its_column(tmp_path: Path) -> None:
    """Undeclared, in the error beside the lines; declared, in the table, also of several lists; a column without one is left alone."""
    path = written(tmp_path, "#path\thair:class[type-1,b]\teyes:multi[2]", "a.jpg\ttype-1\t-1 1", "b.jpg\tb\tNA 1", "c.jpg\tb\t1 -1", "d.jpg\tb\t1 1")
    with pytest.raises(LabelError) as caught:
        read_label_file(path)
    *lines, last = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2", f"{path}:4"]
    assert last == "task 'eyes' has -1 x 2, 1 x 5, NA x 1"
    table = read_label_file(path, missing=["-1"])
    assert table.raw == {"eyes": {"-1": 2, "1": 5, "NA": 1}}
    assert joined({"a": table, "b": table}).raw == {"eyes": {"-1": 4, "1": 10, "NA": 2}}
    made = inspect({"train": table}, images=False)
    assert "    the file has -1 x 2, 1 x 5, NA x 1\n" in text(made)
    with pytest.raises(LabelError, match="not 'c'") as other:
        read_label_file(written(tmp_path, *path.read_text().replace("\tb\tNA", "\tc\tNA").splitlines()), missing=["-1"])
    assert " x " not in str(other.value)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_lists_are_refused(name: str, tmp_path: Path) -> None:
    format, lines, options, says = REFUSED[name]
    with pytest.raises(DecantError) as caught:
        read_labels(written(tmp_path, *lines), format, **options)
    assert says in str(caught.value)


@pytest.mark.parametrize("format", sorted(set(READERS) - {"folders"}))
def test_noise_ends_in_an_error_of_ours(format: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for i in range(40):
        path = tmp_path / f"{i}.txt"
        path.write_bytes(rng.integers(0, 256, int(rng.integers(0, 200)), dtype=np.uint8).tobytes())
        try:
            read_labels(path, format)
        except DecantError:
            continue
