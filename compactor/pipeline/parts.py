"""From what a runtime executed to the kernels that explain it: small sums of kernels, each with its time."""

from collections.abc import Mapping, Sequence

from compactor.backend import Executed
from compactor.ir.cost import homes
from compactor.ir.program import Program
from compactor.target import Part


def kernels_by_name(program: Program, origins: Mapping[str, str]) -> dict[str, tuple[int, bool]]:
    """The kernel of each node of a lowered file, and whether the node is of that kernel or only feeds it."""
    inside, feeding = homes(program)
    found = {}
    for name, origin in origins.items():
        if origin in inside:
            found[name] = (inside[origin], True)
        elif origin in feeding:
            found[name] = (feeding[origin], False)
    return found


def parts(executed: Sequence[Executed], kernels: Mapping[str, tuple[int, bool]], count: int) -> list[Part]:
    """What ran, as the smallest sums of kernels whose times are known; each of ``count`` kernels is in one of them.

    Kernels that a runtime executed in one go stay together, and one that left no trace stays with the kernel before it.
    """
    leader = list(range(count))

    def first(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    spent: list[tuple[int, Executed]] = []
    waiting: list[Executed] = []
    for node in executed:
        known = [kernels[name] for name in node.names if name in kernels]
        own = [i for i, inside in known if inside] or [i for i, _ in known][:1]
        waiting.append(node)
        if own:
            spent += [(own[0], each) for each in waiting]
            waiting = []
            for other in own[1:]:
                leader[first(other)] = first(own[0])
    spent += [(spent[-1][0], each) for each in waiting if spent]
    timed = {first(i) for i, _ in spent}
    for i in range(1, count):
        if first(i) not in timed:
            leader[i] = first(i - 1)
    return [_part([i for i in range(count) if first(i) == root], spent) for root in sorted({*map(first, range(count))})]


def _part(together: list[int], spent: list[tuple[int, Executed]]) -> Part:
    own = [node for i, node in spent if i in together]
    return Part(tuple(together), sum(node.us for node in own), sum(node.count for node in own))
