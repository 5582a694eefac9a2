"""Float32 numbers as Python floats: the shortest decimal that names the same float32, as Caffe would print it."""

from __future__ import annotations

import struct

NAN = float("nan")  # one object, so that two messages that hold it are equal


def shortest(value: float) -> float:
    """0.10000000149011612 -> 0.1; what is too large for float32 becomes infinite, what is too small zero."""
    if value != value:
        return NAN
    if value == 0 or (len(repr(value)) <= 8 and 1e-30 < abs(value) < 1e30):
        return value  # seven digits survive float32
    try:
        single = struct.pack("<f", value)
    except OverflowError:
        return value * float("inf")
    (exact,) = struct.unpack("<f", single)
    shorter = (float(f"{exact:.{digits}g}") for digits in range(6, 10))  # nine digits always suffice
    return next((short for short in shorter if struct.pack("<f", short) == single), exact)
