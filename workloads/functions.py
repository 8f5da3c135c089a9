"""The functions of vector operations: one small vocabulary, and what every operator of other tools is in it.

A hardware model costs exactly these names. An operator without a name of its own takes the one that needs the same steps of
a vector lane (a comparison is a subtraction, a clamp is a maximum, a logarithm costs what an exponential costs); what only
moves data is a gather.
"""

from __future__ import annotations

from workloads.errors import unknown_name
from workloads.ops import Kind

REDUCTIONS = ("mean", "sum", "max")
VOCABULARY = (
    *("add", "sub", "mul", "scale", "div", "sqrt", "exp", "rope"),
    *("relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "sigmoid", "tanh", "erf", "softplus"),
    *("softmax", "layernorm", "rmsnorm", "batchnorm"),
    *REDUCTIONS,
)
"""Names that a row of kind NORM, SOFTMAX, ACTIVATION or ELEMENTWISE may bear."""

_SAME_STEPS = {
    "sub": (
        "rsub subtract eq ne equal not_equal lt le gt ge less less_equal lessorequal greater greater_equal greaterorequal "
        "sgn sign remainder fmod mod isnan isinf isfinite bitshift"
    ),
    "mul": (
        "where bernoulli masked_fill logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not "
        "bitwise_xor __and__ __or__ __xor__ and or xor not bitwiseand bitwiseor bitwisexor bitwisenot square "
        "outer polar complex tril triu trilu lerp addcmul multiply"
    ),
    "relu": (
        "clamp clamp_min clamp_max clip maximum minimum min abs relu6 leaky_relu leakyrelu prelu hardtanh "
        "threshold thresholdedrelu floor ceil round trunc frac nan_to_num shrink"
    ),
    "scale": (
        "neg negative quantize dequantize quantize_per_tensor dequantize_per_tensor quantize_per_channel "
        "bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ dequantize_per_channel "
        "fake_quantize_per_tensor_affine"
    ),
    "div": "true_divide floor_divide divide reciprocal addcdiv softsign angle atan2",
    "sqrt": "rsqrt",
    "exp": (
        "exp2 expm1 log log2 log1p pow float_power sin cos tan asin acos atan sinh cosh asinh acosh atanh elu selu celu logit xlogy erfinv"
    ),
    "silu": "swish hardswish glu",
    "sigmoid": "hardsigmoid special_expit",
    "softplus": "log_sigmoid logsigmoid mish",
    "erf": "special_erf",
    "layernorm": "groupnorm instancenorm",
    "rmsnorm": "l2norm",
    "softmax": "hardmax",
    "rope": "rotaryembedding",
    "add": "cumsum cumprod sum_of cummax cummin",
}
_CANONICAL = {name: name for name in VOCABULARY} | {name: function for function, names in _SAME_STEPS.items() for name in names.split()}


def canonical(function: str) -> str:
    """Return the name of the vocabulary for an operator; raise WorkloadError if there is none."""
    if function not in _CANONICAL:
        raise unknown_name("function of a vector operation", function, _CANONICAL)
    return _CANONICAL[function]


def is_vector_kind(kind: Kind) -> bool:
    """Whether rows of that kind name a function of the vocabulary."""
    return kind in (Kind.NORM, Kind.SOFTMAX, Kind.ACTIVATION, Kind.ELEMENTWISE)
