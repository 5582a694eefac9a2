"""A pytest plug-in: the fixture `decant_parity` fails a test where a net does not agree with itself in another framework.

def test_our_net(decant_parity):
    decant_parity("net.prototxt", "w.caffemodel", against=["onnxruntime"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .results import Report


@pytest.fixture
def decant_parity() -> Callable[..., list[Report]]:
    """`check(net, weights, against, optional=False, **compare's own)`: the reports; each reference is one of the command line's.

    A reference that is not available here fails the test, or skips it where `optional`.
    """

    def check(
        net: Any, weights: str | Path | None = None, against: Sequence[Any] = ("onnxruntime",), *, optional: bool = False, **options: Any
    ) -> list[Report]:
        from .engine import compare
        from .runners.base import Unavailable

        if not against:
            pytest.fail("decant_parity: `against` names nothing to compare with")
        reports = []
        for reference in against:
            try:
                reports.append(compare(net, reference, weights=weights, **options))
            except Unavailable as exc:
                (pytest.skip if optional else pytest.fail)(f"{reference}: {exc}")
            if not reports[-1]:
                pytest.fail(reports[-1].text(), pytrace=False)
        return reports

    return check
