"""The three projects of the lecture: from a data set as it ships to the lists that `decant classify train` reads, and from a bundle to the
file that is handed in. Each also makes a few small files in its layout, so that the whole way can be tried without the data.
"""

from __future__ import annotations
