"""What Intel's NPU compiler asks of a model, checked before it is lowered: static shapes, operators, types.

Sources: the compiler's public repository (openvinotoolkit/npu_compiler, src/vpux_compiler/src/frontend/IE.cpp, read at
0ccf9bf3): the operators that it imports, and OpenVINO's own passes before, which turn others into those. OpenVINO's NPU
guide: static shapes, float16 and 8-bit integers. A model that passes may still be refused by the compiler on the
device, for sizes that it cannot tile for example.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compactor.errors import UnsupportedError

_IMPORTED = """
    Abs Acos Acosh AdaptiveAvgPool AdaptiveMaxPool Add Asin Asinh Assign Atan Atanh AvgPool BatchNormInference
    BatchToSpace BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Broadcast Bucketize CTCGreedyDecoder CTCGreedyDecoderSeqLen
    Ceiling Clamp Concat Constant Convert ConvertLike Convolution ConvolutionBackpropData Cos Cosh CumSum DFT
    DeformableConvolution DeformablePSROIPooling DepthToSpace DetectionOutput Divide Elu EmbeddingBagOffsetsSum
    EmbeddingBagPackedSum EmbeddingSegmentsSum Equal Erf Exp ExperimentalDetectronROIFeatureExtractor
    ExtractImagePatches Eye FakeConvert FakeQuantize Floor FloorMod GRN GRUCell GRUSequence Gather GatherElements
    GatherND GatherTree Gelu Greater GreaterEqual GridSample GroupConvolution GroupConvolutionBackpropData
    GroupNormalization HSigmoid HSwish HardSigmoid I420toBGR I420toRGB IDFT IRDFT Identity If Interpolate Inverse LRN
    LSTMCell LSTMSequence Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr LogicalXor Loop MVN MatMul
    MaxPool Maximum Minimum Mish Mod Multiply NV12toBGR NV12toRGB Negative NonMaxSuppression NonZero NormalizeL2
    NotEqual OneHot PRelu PSROIPooling Pad Parameter Power Proposal RDFT RMS ROIAlign ROIPooling RandomUniform Range
    ReadValue ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    RegionYolo Relu ReorgYolo Reshape Result Reverse ReverseSequence RoPE Roll Round STFT ScaledDotProductAttention
    ScatterElementsUpdate ScatterNDUpdate ScatterUpdate Select Selu ShapeOf ShuffleChannels Sigmoid Sign Sin Sinh
    SoftPlus Softmax SpaceToBatch SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tan Tanh
    TensorIterator Tile TopK Transpose Unsqueeze VariadicSplit
"""
OPERATORS = frozenset(_IMPORTED.split())
"""Imported as they are."""
REWRITTEN = frozenset({"Einsum", "GroupQueryAttention", "Slice"})
"""Turned into those by OpenVINO's passes, which the compiler runs first."""
TOO_NEW = frozenset({("ScatterNDUpdate", "opset15")})
"""Versions of an operator that the compiler does not know, though it knows an older one."""
_TYPES = "f32 f16 bf16 i64 i32 i16 i8 i4 u64 u32 u16 u8 u4 boolean"
TYPES = frozenset(_TYPES.split())


def check(model: Any, shapes: Mapping[str, Sequence[int]], target: str) -> None:
    """Raise `UnsupportedError` naming the first node that the NPU compiler refuses."""
    for reason in reasons(model, shapes):
        raise UnsupportedError(
            f"{target} cannot run this model: {reason}",
            "replace it in the model, or build for a CPU or GPU target: an NPU runs a model whole or not at all",
        )


def reasons(model: Any, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Why Intel's NPU compiler refuses an ``openvino.Model`` at these shapes of its inputs, by node; empty if not.

    The model is left as it is: what depends on shapes alone is computed on a copy.
    """
    from openvino._offline_transformations import apply_moc_transformations

    copy = model.clone()
    copy.reshape({name: list(shape) for name, shape in shapes.items()})
    apply_moc_transformations(copy, cf=True)
    return list(dict.fromkeys(reason for node in copy.get_ordered_ops() for reason in _reasons(node)))


def _reasons(node: Any) -> Iterator[str]:
    info, name = node.get_type_info(), node.get_friendly_name()
    kind = node.get_type_name()
    if kind not in OPERATORS | REWRITTEN:
        yield f"{name}: the NPU compiler knows no {kind}"
    elif (kind, info.version_id) in TOO_NEW:
        yield f"{name}: the NPU compiler knows no {kind} of {info.version_id}, only an older one"
    for output in node.outputs():
        if output.get_partial_shape().is_dynamic:
            yield f"{name} ({kind}): its shape {output.get_partial_shape()} depends on values, and must be static"
        if output.get_element_type().get_type_name() not in TYPES:
            yield f"{name} ({kind}): computes in {output.get_element_type().get_type_name()}, which the NPU has not"
