"""Operators of PyTorch by what they cost: views, makers of constants, copies, reductions, norms, activations, elementwise."""

from __future__ import annotations

import re

from workloads.importers.collector import words

VIEWS = words(
    "view reshape transpose permute t mT expand expand_as unsqueeze squeeze slice select split split_with_sizes "
    "chunk alias flatten unflatten detach contiguous to _to_copy type_as _assert_tensor_metadata dropout narrow "
    "movedim unbind swapaxes lift_fresh_copy lift_fresh as_strided view_as identity getitem _unsafe_view numpy_T "
    "adjoint unsafe_chunk unsafe_split feature_dropout alpha_dropout tensor_split hsplit vsplit squeeze_ "
    "unsqueeze_ view_as_real view_as_complex pad_sequence _reshape_alias positive real conj resolve_conj "
    "resolve_neg copy_to result_type set_ detach_ movedim float half double _conj _neg_view unfold swapdims "
    "moveaxis ravel broadcast_to reshape_as view_as view_copy slice_copy permute_copy squeeze_copy unsqueeze_copy"
)
MAKERS = words(
    "arange zeros ones full empty eye zeros_like ones_like full_like empty_like new_zeros new_ones new_full "
    "new_empty scalar_tensor linspace tensor rand randn rand_like randn_like sym_size sym_numel tril_indices "
    "triu_indices"
)
COPIES = words(
    "cat stack repeat repeat_interleave clone copy pad constant_pad_nd roll flip index_put scatter scatter_add "
    "index_copy index_add slice_scatter select_scatter masked_scatter fill zero _pad_circular reflection_pad1d "
    "reflection_pad2d replication_pad1d replication_pad2d concat concatenate hstack vstack tile "
    "upsample_nearest2d upsample_nearest1d pixel_shuffle pixel_unshuffle im2col col2im copysign"
)
GATHERS = words("gather index index_select take_along_dim masked_select take embedding_bag")
REDUCTIONS = words(
    "sum mean max amax min amin argmax argmin prod any all norm linalg_vector_norm var std var_mean std_mean "
    "cumsum cumprod logsumexp logcumsumexp diff histc bincount count_nonzero median avg_pool1d avg_pool2d "
    "avg_pool3d max_pool1d max_pool2d max_pool2d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool2d aminmax max_pool3d cummax cummin trace linalg_norm nansum "
    "unique_consecutive searchsorted bucketize"
)
NORMS = {
    "layer_norm": "layernorm",
    "native_layer_norm": "layernorm",
    "rms_norm": "rmsnorm",
    "_fused_rms_norm": "rmsnorm",
    "group_norm": "groupnorm",
    "native_group_norm": "groupnorm",
    "batch_norm": "batchnorm",
    "_native_batch_norm_legit_no_training": "batchnorm",
    "cudnn_batch_norm": "batchnorm",
    "instance_norm": "instancenorm",
    "normalize": "l2norm",
}
SOFTMAXES = {"softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"}
ACTIVATIONS = {
    **{name: name for name in ("relu", "relu6", "silu", "tanh", "sigmoid", "softplus", "leaky_relu", "elu", "selu", "celu")},
    **{name: name for name in ("hardtanh", "hardsigmoid", "hardswish", "mish", "prelu", "log_sigmoid", "glu", "gelu", "erf")},
}
ELEMENTWISE = words(
    "add sub mul div rsub neg pow exp exp2 log log2 log1p sqrt rsqrt sin cos abs reciprocal square clamp "
    "clamp_min clamp_max clip where masked_fill maximum minimum eq ne lt le gt ge logical_and logical_or "
    "logical_not bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ __xor__ floor ceil round sign "
    "remainder fmod floor_divide true_divide isnan isinf tril triu addcmul addcdiv lerp expm1 atan2 atan tan asin "
    "acos sinh cosh logical_xor float_power threshold nan_to_num polar logit xlogy isfinite trunc frac "
    "bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ sgn erfinv complex outer special_expit "
    "special_erf divide multiply subtract negative not_equal greater less_equal angle "
    "fake_quantize_per_tensor_affine quantize_per_tensor dequantize_per_tensor quantize_per_channel "
    "dequantize_per_channel dequantize"
)
# Checks of values, which cost nothing.
CHECKS = words(
    "_assert_scalar _assert_async item _local_scalar_dense sym_constrain_range sym_constrain_range_for_size lazy_load_decompositions"
)
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
SORTS = words("sort argsort msort kthvalue")
# Modules whose nodes are one operation of a vector unit: the class name says which.
NORM_CLASS = re.compile(r"(rms|layer|group|batch)_?norm(\d?d|gated|fp32)?$", re.I)
ACTIVATION_CLASSES = {
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "QuickGELUActivation": "quick_gelu",
    "AccurateGELUActivation": "gelu",
    "GELUActivation": "gelu",
    "ReLUSquaredActivation": "relu",
    "MishActivation": "mish",
    "SiLUActivation": "silu",
}
