"""Pictures: decoding and resizing as Caffe does, by OpenCV. Channels are B, G, R; alpha is dropped where colour is asked for.

OpenCV allocates what a header says before it looks at the rest, so headers are read first, whatever the format: a file may unfold to 16 Mi
pixels, or to 1,024 a byte if that is more.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import read_file

Array = np.ndarray[Any, Any]
PIXELS, PIXELS_PER_BYTE = 1 << 24, 1 << 10
LIMIT = 1 << 30  # bytes of a picture file
_PNG = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, *, color: bool | None = True) -> Array:
    """The picture in `data`, uint8 [C, H, W]: three channels, one (`color=False`), or as many as it has (None)."""
    import cv2

    _check_header(data)
    flag = cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if len(data) else None
    except cv2.error as exc:
        raise DataError(f"a picture that OpenCV cannot decode: {exc.err or exc}") from exc
    if image is None:
        raise DataError("no picture: not PNG, JPEG or another format that OpenCV reads, or damaged")
    if image.dtype != np.uint8:
        raise DataError(f"a picture of {image.dtype} values, and Caffe takes bytes; set force_color or force_gray, which brings them to 8 bits")
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def resize(image: Array, height: int, width: int) -> Array:
    """[C, H, W] -> [C, height, width], bilinear as cv::resize: half-pixel centres, no averaging where it shrinks."""
    import cv2

    if image.shape[1:] == (height, width):
        return image
    if height * width * image.shape[0] > 2**31 - 1:
        raise DataError(f"new_height x new_width = {height} x {width} is too large for a blob")
    try:
        resized = cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_LINEAR)
    except (cv2.error, MemoryError) as exc:
        raise DataError(f"cannot be resized to {height} x {width}: {exc}") from exc
    return resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)


def read_image(path: str | Path, *, color: bool = True, size: tuple[int, int] | None = None) -> Array:
    """The picture of a file, uint8 [C, H, W], resized to `size` (height, width) if there is one."""
    try:
        image = decode(read_file(path, limit=LIMIT), color=color)
        return resize(image, *size) if size else image
    except DataError as exc:
        raise DataError(f"{path}: {exc}") from exc


def _check_header(data: bytes) -> None:
    """DataError where a header announces more pixels than the file may unfold to, or a PNG a longer chunk than the file is."""
    if data.startswith(_PNG):
        _check_chunks(data)
    width, height = _announced(data)
    if width * height > max(PIXELS, PIXELS_PER_BYTE * len(data)):
        raise DataError(f"a picture that says it has {width:,} x {height:,} pixels in {len(data):,} bytes; it would fill the memory")


def _check_chunks(data: bytes) -> None:
    at = len(_PNG)
    while at + 8 <= len(data):
        length = _big(data[at : at + 4])
        if length > len(data) - at - 8:
            raise DataError(f"a damaged PNG: a chunk of {length:,} bytes, but {len(data) - at - 8:,} are left")
        at += 12 + length


def _announced(head: bytes) -> tuple[int, int]:
    """Width and height in the header: of a PNG, JPEG, BMP or GIF as they stand there, of other formats as Pillow finds them."""
    if head.startswith(_PNG) and len(head) >= 24:
        return _big(head[16:20]), _big(head[20:24])
    if head.startswith(b"BM") and len(head) >= 26:
        sides = (head[18:20], head[20:22]) if head[14] == 12 else (head[18:22], head[22:26])
        width, height = (int.from_bytes(side, "little", signed=len(side) == 4) for side in sides)
        return abs(width), abs(height)
    if head.startswith(b"GIF8") and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"\xff\xd8"):
        return _jpeg(head) or (0, 0)
    return _by_pillow(head)


def _by_pillow(data: bytes) -> tuple[int, int]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(BytesIO(data)).size
    except Exception as exc:  # whatever its many readers find
        raise DataError("no picture: not PNG, JPEG or another format that is known, or damaged") from exc


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height in the frame header, to which the lengths of the segments lead."""
    at = 2
    while 0 <= at <= len(data) - 9:
        marker = data[at + 1]
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
        elif marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7])
        else:
            at += 2 if marker == 0 or 0xD0 <= marker <= 0xD9 else 2 + max(2, _big(data[at + 2 : at + 4]))
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")
