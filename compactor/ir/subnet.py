"""`Subnet`: one choice of what to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from compactor.errors import InputError


@dataclass(frozen=True)
class Subnet:
    """Kept indices per group and kept blocks. Hashable; groups that are not named are kept whole.

    Attributes:
        space: id of the search space it was chosen from.
        kept: (group name, sorted kept unit positions), sorted by name, only for groups that are not kept as they are.
            A position that is there several times is a unit that is repeated: the student is wider there.
        dropped: names of the blocks that are removed, sorted.
    """

    space: str
    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dropped: tuple[str, ...] = ()

    @staticmethod
    def of(space: str, kept: Mapping[str, tuple[int, ...]], dropped: tuple[str, ...] = ()) -> "Subnet":
        """A Subnet in normal form."""
        items = tuple(sorted((name, tuple(sorted(units))) for name, units in kept.items()))
        return Subnet(space, items, tuple(sorted(set(dropped))))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"space": self.space, "kept": {k: list(v) for k, v in self.kept}, "dropped": list(self.dropped)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Subnet":
        """The inverse of `to_dict`. Raises `InputError` when it is not one."""
        try:
            kept = {str(k): tuple(int(i) for i in v) for k, v in data["kept"].items()}
            return Subnet.of(str(data["space"]), kept, tuple(str(b) for b in data["dropped"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"not a subnet: {error!r} in {str(data)[:80]}", "give what Subnet.to_dict() wrote"
            ) from error


def ranked(order: Sequence[int], count: int) -> tuple[int, ...]:
    """The first ``count`` units of an order, best first; past its end it begins again: the best repeat first."""
    return tuple(islice(cycle(order), count))
