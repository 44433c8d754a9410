"""Schedules of CPU loops for TVM, which has none that works without tuning.

TVM lowers an operator to plain nested loops. This rule rewrites convolutions, products and the
operators fused to them into a form that every CPU runs well: channels last and in vector registers,
a few neighbouring places as accumulators, the rest in parallel. Loops of functions in another form
are only made parallel.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir import dlight
from tvm.s_tir.schedule import ScheduleError

LANES = (32, 16, 8, 4, 2)  # elements of one vector step: the widest that divides the channels
PLACES = 8  # the largest number of accumulators side by side
_SPATIAL, _REDUCTION = 0, 2  # tvm's IterVar.iter_type


class CpuRule(dlight.ScheduleRule):  # type: ignore[misc]
    """Schedule one function for CPUs; a rule for ``dlight.ApplyDefaultSchedule``."""

    def apply(self, func: Any, target: Any, tunable: bool) -> Any:
        """Return the schedule, or None to leave the loops as they are."""
        for arrange in (_tiled, _parallel):
            try:
                return arrange(s_tir.Schedule(func))
            except (ScheduleError, _OtherFormError):
                continue
        return None


class _OtherFormError(Exception):
    """A schedule does not fit the form of the function."""


def _tiled(schedule: Any) -> Any:
    """Schedule one reduction with the blocks around it, or element-wise work alone."""
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    heavy = [index for index, block in enumerate(blocks) if _axes(schedule, block, _REDUCTION)]
    if not blocks or len(heavy) > 1:
        raise _OtherFormError
    first = heavy[0] if heavy else 0
    last = blocks[-1]
    for block in blocks[first + 1 if heavy else 0 : -1]:
        schedule.compute_inline(block)
    for block in blocks[:first]:
        _prepare(schedule, block)
    if heavy:
        _tile_reduction(schedule, blocks[first], last if first + 1 < len(blocks) else None)
    else:
        _vectorise(schedule, last)
    return schedule


def _parallel(schedule: Any) -> Any:
    """Run the outer loops of each block in parallel."""
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = schedule.get_loops(block)
        kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
        if len(loops) != len(kinds):
            continue
        reduced = [index for index, kind in enumerate(kinds) if kind != _SPATIAL]
        outer = loops[: reduced[0] if reduced else len(loops)]
        if outer:
            schedule.parallel(schedule.fuse(*outer))
    return schedule


def _prepare(schedule: Any, block: Any) -> None:
    """Inline a copy; keep padding as a separate array, whose reads need no bounds checks."""
    read = schedule.get(block).reads[0].source.shape
    written = schedule.get(block).writes[0].source.shape
    if [str(size) for size in read] == [str(size) for size in written]:
        schedule.compute_inline(block)
    else:
        _vectorise(schedule, block)


def _vectorise(schedule: Any, block: Any) -> None:
    loops = schedule.get_loops(block)
    if not loops:
        raise _OtherFormError
    *outer, last = loops
    rest, lanes = schedule.split(last, [None, _lanes(_extent(schedule, last))])
    schedule.parallel(schedule.fuse(*outer) if outer else rest)
    schedule.vectorize(lanes)


def _tile_reduction(schedule: Any, block: Any, last: Any | None) -> None:
    """Keep a tile of places by channels in registers while the reduction runs over it.

    ``last`` is the element-wise block after it, which is applied tile by tile.
    """
    sums = _axes(schedule, block, _REDUCTION)
    target = block if last is None else last
    loops = schedule.get_loops(target)
    spatial = loops[: len(loops) - (sums if last is None else 0)]
    reduction = loops[len(spatial) :]
    if not spatial or len(spatial) != _axes(schedule, target, _SPATIAL):
        raise _OtherFormError
    channels, lanes = schedule.split(
        spatial[-1], [None, _lanes(_extent(schedule, spatial[-1]))], preserve_unit_iters=True
    )
    outer, inner = [*spatial[:-1], channels], [lanes]
    if len(spatial) > 1 and _is_fixed(schedule, spatial[-2]):
        places = max(n for n in range(1, PLACES + 1) if _extent(schedule, spatial[-2]) % n == 0)
        rows, beside = schedule.split(spatial[-2], [None, places], preserve_unit_iters=True)
        outer, inner = [*spatial[:-2], rows, channels], [beside, lanes]
    schedule.reorder(*outer, *reduction, *inner)
    tile = schedule.fuse(*outer)
    schedule.parallel(tile)
    schedule.vectorize(lanes)
    if last is not None:
        schedule.compute_at(block, tile, preserve_unit_loops=True)
        below = schedule.get_loops(block)[1:]
        inner, reduction = below[:-sums], below[-sums:]
        schedule.reorder(*reduction, *inner)
        schedule.vectorize(inner[-1])
        inner = inner[-2:]
    if len(inner) > 1:
        schedule.unroll(inner[0])
    schedule.decompose_reduction(block, reduction[0])


def _axes(schedule: Any, block: Any, kind: int) -> int:
    return sum(int(axis.iter_type) == kind for axis in schedule.get(block).iter_vars)


def _is_fixed(schedule: Any, loop: Any) -> bool:
    return isinstance(schedule.get(loop).extent, tirx.IntImm)


def _extent(schedule: Any, loop: Any) -> int:
    if not _is_fixed(schedule, loop):
        raise _OtherFormError
    return int(schedule.get(loop).extent)


def _lanes(extent: int) -> int:
    return next((lanes for lanes in LANES if extent % lanes == 0), 1)
