"""Places for the boxes of a layered graph: everything flows down, chains stay straight, few lines cross.

Ranks by longest path; a line that passes ranks does so through bends, one line a source however many boxes it ends in; the order within
a rank by barycentres (Sugiyama, Tagawa, Toda, 1981), with the fewest crossings that the sweeps met; x by aligned blocks (Brandes, Koepf,
Fast and Simple Horizontal Coordinate Assignment, 2001), compacted over the block graph. Units are pixels; y grows downwards.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

SWEEPS = 12
BENDS = 40_000  # of all lines together; beyond, long lines run straight behind the boxes

Point = tuple[float, float]
Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """`places` are the upper left corners of the boxes; `routes[e]` the points of edge e, from a lower to an upper middle."""

    width: float
    height: float
    places: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]


def arrange(sizes: Sequence[Size], edges: Sequence[tuple[int, int]], *, gap: float = 28, rank_gap: float = 40, bend: float = 10) -> Layout:
    """Place boxes of the given sizes; an edge's source stands before its target. A bend takes the width `bend`."""
    ranks = _ranks(len(sizes), edges)
    net = _with_bends(ranks, edges)
    order = _order(net)
    widths = [width for width, _ in sizes] + [bend] * (len(net.rank) - len(sizes))
    centres = _centres(net, order, widths, gap)
    tops, heights = _rows(order, sizes, rank_gap)
    places = tuple((centres[i] - width / 2, tops[net.rank[i]]) for i, (width, _) in enumerate(sizes))
    routes = tuple(_route(path, centres, net.rank, tops, heights, sizes) for path in net.paths)
    right = max((centres[i] + widths[i] / 2 for i in range(len(widths))), default=0.0)
    return Layout(right, tops[-1] + heights[-1] if tops else 0.0, places, routes)


# Ranks and bends ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Layered:
    """Nodes are the boxes, then the bends; each link joins two ranks that are neighbours, save those too long to bend."""

    boxes: int
    rank: list[int]
    up: list[list[int]] = field(default_factory=list)
    down: list[list[int]] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)  # per edge: its source, bends, target

    def link(self, above: int, below: int) -> None:
        if above not in self.up[below]:
            self.up[below].append(above)
            self.down[above].append(below)


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from the sources; a source itself stands just above the first box that it feeds."""
    rank = [0] * count
    fed = [False] * count
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        rank[target] = max(rank[target], rank[source] + 1)
        fed[target] = True
    first: dict[int, int] = {}
    for source, target in edges:
        if not fed[source]:
            first[source] = min(first.get(source, rank[target]), rank[target])
    for source, below in first.items():
        rank[source] = below - 1
    return rank


def _with_bends(rank: list[int], edges: Sequence[tuple[int, int]]) -> _Layered:
    net = _Layered(len(rank), list(rank), [[] for _ in rank], [[] for _ in rank])
    reach: dict[int, int] = {}
    for source, target in edges:
        reach[source] = max(reach.get(source, 0), rank[target])
    bent = _affordable({source: last - rank[source] - 1 for source, last in reach.items()})
    lines = {source: _line(net, source, reach[source]) for source in bent}
    for source, target in edges:
        line = [source, *lines.get(source, ())[: rank[target] - rank[source] - 1]]
        if len(line) == rank[target] - rank[source]:
            net.link(line[-1], target)
        net.paths.append([*line, target])
    return net


def _affordable(needed: dict[int, int]) -> list[int]:
    """The sources whose lines bend: all of them, save the longest where all would need too many bends."""
    left, chosen = BENDS, []
    for source in sorted(needed, key=lambda source: needed[source]):
        left -= needed[source]
        if left >= 0:
            chosen.append(source)
    return sorted(chosen)


def _line(net: _Layered, source: int, last: int) -> list[int]:
    """The bends of a source's line in every rank down to the one above `last`."""
    made, above = [], source
    for rank in range(net.rank[source] + 1, last):
        net.rank.append(rank)
        net.up.append([])
        net.down.append([])
        made.append(len(net.rank) - 1)
        net.link(above, made[-1])
        above = made[-1]
    return made


# Order within the ranks -----------------------------------------------------------------------------------------------


def _order(net: _Layered) -> list[list[int]]:
    """The nodes of each rank from left to right."""
    order = _first_order(net)
    best, fewest = order, _crossings(net, order)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        order = _swept(net, order, downwards=sweep % 2 == 0)
        crossings = _crossings(net, order)
        if crossings < fewest:
            best, fewest = order, crossings
    return best


def _first_order(net: _Layered) -> list[list[int]]:
    """Depth first from the sources: what belongs together stands together."""
    order: list[list[int]] = [[] for _ in range(max(net.rank, default=-1) + 1)]
    seen = set[int]()
    for source in (i for i in range(len(net.rank)) if not net.up[i]):
        stack = [source]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                order[net.rank[node]].append(node)
                stack += reversed(net.down[node])
    return order


def _swept(net: _Layered, order: list[list[int]], *, downwards: bool) -> list[list[int]]:
    """Each rank sorted by the mean place of its neighbours in the rank before; a node without any keeps its place."""
    new, place = [list(rank) for rank in order], _places(order)
    towards = net.up if downwards else net.down
    for rank in new if downwards else reversed(new):
        mean = {n: sum(place[m] for m in towards[n]) / len(towards[n]) if towards[n] else float(place[n]) for n in rank}
        rank.sort(key=lambda n: mean[n])
        place.update(_places([rank]))
    return new


def _places(order: Iterable[list[int]]) -> dict[int, int]:
    return {node: i for rank in order for i, node in enumerate(rank)}


def _crossings(net: _Layered, order: list[list[int]]) -> int:
    place, total = _places(order), 0
    for rank in order:
        seen: list[int] = []
        for node in rank:
            ends = sorted(place[m] for m in net.down[node])
            total += sum(len(seen) - bisect_left(seen, end + 1) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


# x of the nodes -------------------------------------------------------------------------------------------------------


def _centres(net: _Layered, order: list[list[int]], widths: Sequence[float], gap: float) -> list[float]:
    """The mean of the two middle ones of four placements: aligned upwards or downwards, leaning left or right."""
    yielding = _yielding(net, order)
    candidates = []
    for towards in (net.up, net.down):
        for mirrored in (False, True):
            ranks = [rank[::-1] if mirrored else rank for rank in (order if towards is net.up else order[::-1])]
            root = _blocks(towards, ranks, yielding)
            x = _compacted(ranks, root, widths, gap)
            candidates.append([-v for v in x] if mirrored else x)
    return _drawn_near(_balanced(candidates, widths), net, order, widths, gap)


def _yielding(net: _Layered, order: list[list[int]]) -> set[tuple[int, int]]:
    """The links that align nothing: those that cross a line between two bends, and where a line leaves a chain of boxes or joins one."""
    place, found = _places(order), set[tuple[int, int]]()
    for rank in order[:-1]:
        links = [(place[a], place[b], a, b) for a in rank for b in net.down[a]]
        inner = [link for link in links if link[2] >= net.boxes and link[3] >= net.boxes]
        for above, below, a, b in links:
            if a < net.boxes or b < net.boxes:
                leaves = b >= net.boxes and any(other < net.boxes for other in net.down[a])
                joins = a >= net.boxes and len(net.up[b]) == 2 and any(other < net.boxes for other in net.up[b])
                if leaves or joins or any((above - u) * (below - v) < 0 for u, v, _, _ in inner):
                    found.add((a, b))
    return found


def _blocks(towards: list[list[int]], ranks: list[list[int]], yielding: set[tuple[int, int]]) -> list[int]:
    """Nodes aligned with the middle one of their neighbours in the rank before, where no aligned line is crossed; the root of each."""
    root = list(range(len(towards)))
    taken = set[int]()
    place = _places(ranks)
    for rank in ranks:
        limit = -1
        for node in rank:
            near = sorted(towards[node], key=lambda n: place[n])
            for other in near[(len(near) - 1) // 2 : len(near) // 2 + 1]:
                free = other not in taken and (other, node) not in yielding and (node, other) not in yielding
                if root[node] == node and free and place[other] > limit:
                    root[node] = root[other]
                    taken.add(other)
                    limit = place[other]
    return root


def _compacted(ranks: list[list[int]], root: list[int], widths: Sequence[float], gap: float) -> list[float]:
    """Blocks as far left as their neighbours allow, then each as far right as costs no width: so nothing hangs apart."""
    left: dict[int, list[tuple[int, float]]] = {r: [] for r in root}
    right: dict[int, list[tuple[int, float]]] = {r: [] for r in root}
    for rank in ranks:
        for a, b in pairwise(rank):
            room = (widths[a] + widths[b]) / 2 + gap
            left[root[b]].append((root[a], room))
            right[root[a]].append((root[b], room))
    x: dict[int, float] = {}
    order = _sorted_blocks(left, right)
    for block in order:
        x[block] = max((x[other] + room for other, room in left[block]), default=0.0)
    for block in reversed(order):
        x[block] = max(x[block], min((x[other] - room for other, room in right[block]), default=x[block]))
    return [x[r] for r in root]


def _sorted_blocks(left: dict[int, list[tuple[int, float]]], right: dict[int, list[tuple[int, float]]]) -> list[int]:
    """Each block behind those on its left."""
    waiting = {block: len(others) for block, others in left.items()}
    ready = [block for block, count in waiting.items() if not count]
    done = []
    while ready:
        block = ready.pop()
        done.append(block)
        for other, _ in right[block]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return done


def _balanced(candidates: list[list[float]], widths: Sequence[float]) -> list[float]:
    """The candidates laid over the narrowest, leaning ones at their own side; then the middle. The leftmost border is 0."""
    spans = [
        (min(v - w / 2 for v, w in zip(x, widths, strict=True)), max(v + w / 2 for v, w in zip(x, widths, strict=True))) for x in candidates if x
    ]
    if not spans:
        return []
    low, high = min(spans, key=lambda span: span[1] - span[0])
    moved = []
    for i, (x, (start, end)) in enumerate(zip(candidates, spans, strict=True)):
        shift = high - end if i % 2 else low - start
        moved.append([v + shift for v in x])
    middle = [sum(sorted(values)[1:3]) / 2 for values in zip(*moved, strict=True)]
    border = min(v - w / 2 for v, w in zip(middle, widths, strict=True))
    return [v - border for v in middle]


def _drawn_near(centres: list[float], net: _Layered, order: list[list[int]], widths: Sequence[float], gap: float) -> list[float]:
    """Upright parts of lines that stand in line with neither end, as near to the ends as their neighbours allow."""
    x, place = list(centres), _places(order)
    for run in _upright(centres, net):
        low, high = -inf, inf
        for bend in run:
            rank, i = order[net.rank[bend]], place[bend]
            if i:
                low = max(low, x[rank[i - 1]] + (widths[rank[i - 1]] + widths[bend]) / 2 + gap)
            if i + 1 < len(rank):
                high = min(high, x[rank[i + 1]] - (widths[rank[i + 1]] + widths[bend]) / 2 - gap)
        ends = [x[end] for end in (*net.up[run[0]], *(end for bend in run for end in net.down[bend])) if end not in run]
        if low <= high and not any(abs(x[run[0]] - end) < 0.5 for end in ends):
            for bend in run:
                x[bend] = min(max(sum(ends) / len(ends), low), high)
    return x


def _upright(centres: list[float], net: _Layered) -> list[list[int]]:
    """Bends of one line that stand above each other."""
    runs: dict[int, list[int]] = {}
    for bend in range(net.boxes, len(net.rank)):
        (above,) = net.up[bend]
        run = runs[above] if above in runs and abs(centres[above] - centres[bend]) < 0.5 else []
        run.append(bend)
        runs[bend] = run
    return list({id(run): run for run in runs.values()}.values())


# y, and the lines -----------------------------------------------------------------------------------------------------


def _rows(order: list[list[int]], sizes: Sequence[Size], gap: float) -> tuple[list[float], list[float]]:
    """Top and height of each rank."""
    tops, heights, y = [], [], 0.0
    for rank in order:
        heights.append(max((sizes[node][1] for node in rank if node < len(sizes)), default=0.0))
        tops.append(y)
        y += heights[-1] + gap
    return tops, heights


def _route(
    path: list[int], centres: list[float], rank: list[int], tops: list[float], heights: list[float], sizes: Sequence[Size]
) -> tuple[Point, ...]:
    """Down to the end of the source's rank, upright through the ranks between, to the top of the target."""
    source, *bends, target = path
    points = [(centres[source], tops[rank[source]] + sizes[source][1]), (centres[source], tops[rank[source]] + heights[rank[source]])]
    for bend in bends:
        points += [(centres[bend], tops[rank[bend]]), (centres[bend], tops[rank[bend]] + heights[rank[bend]])]
    points.append((centres[target], tops[rank[target]]))
    return tuple(point for i, point in enumerate(points) if not i or point != points[i - 1])
