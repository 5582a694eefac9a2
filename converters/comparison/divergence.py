"""stub"""
from __future__ import annotations
from typing import Any
def first_divergence(pair: Any, report: Any) -> None:
    return None
