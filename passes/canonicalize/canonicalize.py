"""`Canonicalize`: the small dialect that every later pass may count on."""

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from compactor.errors import InternalError
from compactor.ir.program import Program
from compactor.passes.canonicalize.attention import recognise_attention
from compactor.passes.canonicalize.constants import fold_constants
from compactor.passes.canonicalize.draft import Draft
from compactor.passes.canonicalize.duplicates import merge_duplicates
from compactor.passes.canonicalize.identities import remove_identities
from compactor.passes.canonicalize.inplace import remove_inplace
from compactor.passes.canonicalize.linears import recognise_linears, unflatten_linears
from compactor.passes.canonicalize.masks import simplify_masks
from compactor.passes.canonicalize.spellings import unify_spellings
from compactor.passes.canonicalize.weights import store_weights
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassResult

REWRITES: tuple[Callable[[Draft], int], ...] = (
    remove_inplace,
    unify_spellings,
    remove_identities,
    merge_duplicates,
    fold_constants,
    recognise_linears,
    store_weights,
    unflatten_linears,
    simplify_masks,
    recognise_attention,
)
ROUNDS = 20


class Canonicalize(Pass):
    """Exact rewrites to a fixed point. Batch norms stay: `fold_batchnorm` takes them, when training is over.

    Metrics: ``rewrites`` (how often each applied), ``nodes`` before and after, ``skipped`` (near misses, with reasons).
    """

    name: ClassVar[str] = "canonicalize"
    version: ClassVar[int] = 2
    exact: ClassVar[bool] = True
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical"})

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Rewrite until nothing applies. Raises `UnsupportedError` for side effects that cannot be made functional."""
        result, counts, skipped = canonical(program)
        nodes = [len(program.graph.nodes), len(result.graph.nodes)]
        return PassResult(result, bool(counts), {"rewrites": dict(counts), "nodes": nodes, "skipped": skipped})


def canonical(program: Program) -> tuple[Program, Counter[str], list[str]]:
    """The canonical Program, how often each rewrite applied, and what was skipped and why."""
    draft = Draft(program)
    counts: Counter[str] = Counter()
    for _ in range(ROUNDS):
        before = counts.total()
        draft.skipped.clear()
        for rewrite in REWRITES:
            applied = rewrite(draft)
            if applied:
                counts[rewrite.__name__] += applied
                draft.settle()
        if counts.total() == before:
            return (draft.finish() if counts else program), counts, draft.skipped
    raise InternalError(f"canonicalize does not settle in {ROUNDS} rounds: {dict(counts)}")
