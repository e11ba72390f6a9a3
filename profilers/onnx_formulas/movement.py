"""Operators that make, copy or rename tensors: no arithmetic."""

from .table import free

free(
    "Cast CastLike BitCast Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Identity Pad Range Reshape "
    "Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Col2Im CenterCropPad TensorScatter "
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial "
    "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength ConcatFromSequence "
    "SplitToSequence Optional OptionalGetElement OptionalHasElement",
    family="movement",
    fused="QLinearConcat",
)
