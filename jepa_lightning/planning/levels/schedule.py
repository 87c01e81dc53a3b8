"""How far each level plans in the calls of an episode."""

from __future__ import annotations

from collections.abc import Sequence


def shrinking_horizons(
    call: int, calls: int, horizons: Sequence[int], least: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The horizons of a call, as in H-JEPA (Zhang et al. 2026, arXiv:2610.06805): less is ahead as an episode ends.

    The top level's horizon falls from its setting to 1 in equal shares of the calls. A level below keeps its own until
    the level above is at 1, and then falls likewise in the calls that are left.

    Args:
        call: number of the call, from 0; those after the last are like the last.
        calls: number of calls.
        horizons: steps of each level, lowest first.
        least: which each level does not fall below; 1 by default.

    Returns:
        The steps of each level, lowest first.

    Raises:
        ValueError: a number is out of range.

    Examples:
        >>> from jepa_lightning.planning import shrinking_horizons
        >>> [shrinking_horizons(call, 10, [2, 5]) for call in range(10)]
        [(2, 5), (2, 5), (2, 4), (2, 4), (2, 3), (2, 3), (2, 2), (2, 2), (2, 1), (1, 1)]
    """
    lowest = [1] * len(horizons) if least is None else list(least)
    if call < 0 or calls < 1 or len(lowest) != len(horizons) or any(map(int.__lt__, horizons, lowest)):
        raise ValueError(
            f"expected a call from 0, at least 1 of them, and horizons no shorter than {lowest}, got {call}, {calls} "
            f"and {list(horizons)}"
        )
    call = min(call, calls - 1)
    found = []
    begin = 0  # the call from which a level falls
    for most, least_of in zip(reversed(horizons), reversed(lowest), strict=True):
        values, left = most - least_of + 1, calls - begin
        found.append(most if call < begin else most - (call - begin) * values // left)
        begin += -(-(values - 1) * left // values)
    return tuple(reversed(found))
