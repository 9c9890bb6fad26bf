"""The named pipelines: one readable list per target family and effort."""

from difflib import get_close_matches
from pathlib import Path

from compactor.errors import UsageError
from compactor.pipeline.syntax import Step
from compactor.pipeline.text import Pipeline
from compactor.target import Target

EFFORTS = ("quick", "balanced", "max")

_PRUNE = "prune.cofi{{epochs=1,variants=0,margin=0.95,rounds=8,hidden=false,way={way},layerwise=0.0}}"
_TRAIN = "distill.layerwise{{share={share},layers=1,logits_if=unkept,logits=0.5,hidden=0.5}}"

CPU = {
    "quick": "canonicalize,fold_batchnorm,quantize.fastest",
    "balanced": "canonicalize,search.uniform,distill.logits,fold_batchnorm,quantize.fastest",
    "max": f"canonicalize,{_PRUNE.format(way=0.8)},{_TRAIN.format(share=0.25)},"
    f"{_PRUNE.format(way=1.0)},{_TRAIN.format(share=1.0)},"
    "fold_batchnorm,quantize.mixed,quantize.qat{variants=0,calibrate=false,tolerance=0.3}",
}
TENSORRT = dict(CPU)
NPU = dict(CPU)
FAMILIES = {"cpu": CPU, "tensorrt": TENSORRT, "npu": NPU}


def family(target: Target) -> str:
    """The family of a target: ``cpu``, ``tensorrt`` or ``npu``."""
    if target.backend == "tensorrt":
        return "tensorrt"
    return "npu" if "npu" in target.name.split("-") else "cpu"


def named(effort: str, target: Target) -> str:
    """The text of the named pipeline for a target. Raises `UsageError` for an unknown effort."""
    if effort not in EFFORTS:
        close = get_close_matches(effort, EFFORTS, n=1)
        raise UsageError(
            f"unknown effort {effort!r}", f"did you mean {close[0]}?" if close else f"known: {', '.join(EFFORTS)}"
        )
    return FAMILIES[family(target)][effort]


def from_search(pipeline: Pipeline, folder: Path) -> Pipeline:
    """The pipeline with the choice from an earlier search in the place of its own, or after ``canonicalize``.

    Raises `UsageError` when the folder holds no search.
    """
    chosen = Pipeline.parse(str(Step("search.stored", {"folder": str(folder.absolute())}))).passes
    names = pipeline.names
    searches = [i for i, name in enumerate(names) if name.startswith("search.")]
    start = searches[0] if searches else names.index("canonicalize") + 1 if "canonicalize" in names else 0
    left = [step for i, step in enumerate(pipeline) if i not in searches]
    return Pipeline((*left[:start], *chosen, *left[start:]))
