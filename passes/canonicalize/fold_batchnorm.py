"""`FoldBatchNorm`: eval-mode batch norms go into the convolution or linear layer before them."""

from typing import Any, ClassVar

from torch import Tensor, fx

from compactor.errors import InputError
from compactor.ir.graphs import argument, aten, groups_of
from compactor.ir.program import Program
from compactor.passes.canonicalize.draft import Draft
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassResult

_OUT_AXIS: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv3d.default: 0,
    aten.linear.default: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
    aten.conv_transpose3d.input: 1,
}


class FoldBatchNorm(Pass):
    """Fold every batch norm; one that cannot be folded becomes a product and a sum per channel.

    Folding is computed in float64: ``W' = W·γ/√(σ²+ε)``, ``b' = (b - μ)·γ/√(σ²+ε) + β`` (Jacob et al. 2018, 3.2).
    Metrics: ``folded``, ``affine`` (how many became product and sum) and ``reasons`` (why, per node).
    """

    name: ClassVar[str] = "fold_batchnorm"
    exact: ClassVar[bool] = True
    ensures: ClassVar[frozenset[str]] = frozenset({"batchnorm_folded"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "search.uniform", "distill.logits")
    before: ClassVar[tuple[str, ...]] = ("quantize.ptq", "quantize.cast", "quantize.fastest")

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Fold all batch norms. Raises `InputError` for one that still uses batch statistics."""
        result, folded, reasons = folded_program(program)
        metrics = {"folded": folded, "affine": len(reasons), "reasons": reasons}
        return PassResult(result, bool(folded or reasons), metrics)


def folded_program(program: Program) -> tuple[Program, int, list[str]]:
    """The Program without batch norms, how many were folded, and why the others became product and sum."""
    draft = Draft(program)
    folded, reasons = 0, []
    for node in [n for n in draft.graph.nodes if n.target is aten.batch_norm.default]:
        scale, shift = _scale_and_shift(node, draft)
        reason = _obstacle(node, draft)
        if reason is None:
            _fold(node, scale, shift, draft)
            folded += 1
        else:
            reasons.append(f"{node.name}: {reason}")
            _spell_out(node, scale, shift, draft)
    draft.settle()
    return (draft.finish() if folded or reasons else program), folded, reasons


def _scale_and_shift(node: fx.Node, draft: Draft) -> tuple[Tensor, Tensor]:
    """Per channel, in float64: what the norm multiplies by and adds."""
    if argument(node, 5, "training", False):
        raise InputError(f"batch norm {node.name} uses batch statistics", "export the model after model.eval()")
    weight, bias, mean, variance = (_stored(argument(node, i, n), node, draft) for i, n in _TENSORS)
    if mean is None or variance is None:
        raise InputError(f"batch norm {node.name} has no running statistics", "train it with track_running_stats=True")
    scale = (variance + float(argument(node, 7, "eps", 1e-5))).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


_TENSORS = ((1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var"))


def _stored(source: Any, node: fx.Node, draft: Draft) -> Tensor | None:
    if source is None:
        return None
    if not isinstance(source, fx.Node) or source.op != "get_attr":
        raise InputError(f"batch norm {node.name} computes its parameters", "run canonicalize before fold_batchnorm")
    return draft.state[str(source.target)].detach().double()


def _obstacle(node: fx.Node, draft: Draft) -> str | None:
    """Why the norm cannot go into the layer before it, or None."""
    layer = node.args[0]
    if not isinstance(layer, fx.Node) or layer.target not in _OUT_AXIS:
        return f"follows {getattr(layer, 'target', layer)}, not a convolution or linear layer"
    if len(layer.users) > 1:
        return f"{layer.name} is also read by others"
    weight, bias = layer.args[1], argument(layer, 2, "bias")
    if weight.op != "get_attr" or (bias is not None and bias.op != "get_attr"):  # type: ignore[union-attr]
        return f"{layer.name} computes its weights"
    if _OUT_AXIS[layer.target] == 1 and groups_of(layer) != 1:
        return f"{layer.name} is a grouped transposed convolution"
    value = draft.tensor(layer)
    if layer.target is aten.linear.default and value is not None and value.dim() != 2:
        return f"{layer.name} has its channels last"
    return None


def _fold(node: fx.Node, scale: Tensor, shift: Tensor, draft: Draft) -> None:
    layer: fx.Node = node.args[0]  # type: ignore[assignment]
    weight: fx.Node = layer.args[1]  # type: ignore[assignment]
    bias = argument(layer, 2, "bias")
    old = draft.state[str(weight.target)]
    shape = [1] * old.dim()
    shape[_OUT_AXIS[layer.target]] = -1
    fresh = (old.double() * scale.reshape(shape)).to(old.dtype)
    if bias is not None:
        shift = shift + draft.state[str(bias.target)].double() * scale
    layer.update_arg(1, _store(layer, weight, str(weight.target), fresh, draft))
    name = str(weight.target).removesuffix("weight").rstrip(".") + ".bias"
    made = _store(layer, bias, name.lstrip("."), shift.to(old.dtype), draft, trainable=weight.target in draft.trainable)
    if len(layer.args) > 2:
        layer.update_arg(2, made)
    else:
        layer.kwargs = {k: v for k, v in layer.kwargs.items() if k != "bias"}
        layer.args = (*layer.args, made)
    draft.replace(node, layer)


def _store(
    layer: fx.Node, old: fx.Node | None, name: str, tensor: Tensor, draft: Draft, *, trainable: bool = False
) -> fx.Node:
    """Put a tensor in the place of ``old`` where this layer alone reads it, else under a new name."""
    if old is None or len(old.users) > 1 or old.target in _other_reads(old, draft):
        trained = trainable if old is None else old.target in draft.trainable
        return draft.constant(layer, name, tensor, trainable=trained)
    draft.state[str(old.target)] = tensor
    return old


def _other_reads(old: fx.Node, draft: Draft) -> set[Any]:
    return {n.target for n in draft.graph.nodes if n.op == "get_attr" and n is not old}


def _spell_out(node: fx.Node, scale: Tensor, shift: Tensor, draft: Draft) -> None:
    value = draft.tensor(node)
    if value is None:
        raise InputError(f"the shape of batch norm {node.name} is unknown", "run canonicalize before fold_batchnorm")
    shape = (-1, *[1] * (value.dim() - 2))
    weight = argument(node, 1, "weight")
    trainable = weight is not None and weight.target in draft.trainable
    names = (f"{node.name}.scale", f"{node.name}.shift")
    tensors = (t.reshape(shape).to(value.dtype) for t in (scale, shift))
    made = [draft.constant(node, n, t, trainable=trainable) for n, t in zip(names, tensors, strict=True)]
    product = draft.before(node, aten.mul.Tensor, node.args[0], made[0])
    draft.replace(node, draft.before(node, aten.add.Tensor, product, made[1]))
