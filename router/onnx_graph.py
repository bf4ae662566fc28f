"""What an ONNX file may hold: a plain graph of known operators with its weights inside.

ONNX Runtime opens files that a model names as the place of its weights, and a graph may hold loops
and operators of any domain. So a file is read here before it is given to the runtime: as the wire
format of protocol buffers, by the field numbers of onnx.proto, without the package `onnx`.
"""

from collections.abc import Iterator
from typing import Final

OPERATORS: Final = frozenset(
    """Abs Add And Cast Clip Concat Constant ConstantOfShape Cos CumSum DequantizeLinear Div
    DynamicQuantizeLinear Einsum Equal Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gelu Gemm Greater GreaterOrEqual Identity IsNaN LayerNormalization Less LessOrEqual
    Log MatMul MatMulInteger Max Min Mod Mul Neg Not Or Pow QuantizeLinear RMSNormalization
    Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceSum Relu Reshape Shape Sigmoid Sign
    SimplifiedLayerNormalization Sin Slice Softmax Split Sqrt Squeeze Sub Tanh Tile Transpose
    Trilu Unsqueeze Where""".split()
)
_DOMAINS: Final = ("", "ai.onnx")

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_REFUSED = (6, 11, 22, 23)  # graphs and sparse tensors
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


def check_graph(model: bytes) -> None:
    """Hold a model to the list above.

    Raises:
        ValueError: it is no ONNX file, or holds an unknown operator, a graph inside a node, a
            function, or weights that lie in another file.
    """
    graphs = 0
    for field, value in _fields(memoryview(model)):
        if field in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise ValueError("model.onnx holds functions or training steps")
        if field == _MODEL_GRAPH:
            graphs += 1
            _check_nodes(_bytes(value))
    if graphs != 1:
        raise ValueError(f"model.onnx holds {graphs} graphs; is it an ONNX file?")


def _check_nodes(graph: memoryview) -> None:
    for field, value in _fields(graph):
        if field == _GRAPH_SPARSE:
            raise ValueError("model.onnx holds sparse weights")
        if field == _GRAPH_INITIALIZER:
            _check_tensor(_bytes(value))
        if field == _GRAPH_NODE:
            _check_node(_bytes(value))


def _check_node(node: memoryview) -> None:
    operator = domain = ""
    for field, value in _fields(node):
        if field == _NODE_OPERATOR:
            operator = str(_bytes(value), "utf-8")
        elif field == _NODE_DOMAIN:
            domain = str(_bytes(value), "utf-8")
        elif field == _NODE_ATTRIBUTE:
            _check_attribute(_bytes(value))
    if operator not in OPERATORS or domain not in _DOMAINS:
        raise ValueError(f"model.onnx holds the operator {domain}:{operator}, which is not served")


def _check_attribute(attribute: memoryview) -> None:
    for field, value in _fields(attribute):
        if field in _ATTRIBUTE_REFUSED:
            raise ValueError("model.onnx holds a graph inside a node, or sparse weights")
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _check_tensor(_bytes(value))


def _check_tensor(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            raise ValueError("model.onnx names another file as the place of its weights")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("model.onnx is damaged")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message; numbers of fixed length are skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield field, value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(message, at)
            yield field, message[at : at + size]
            at += size
        else:
            raise ValueError("model.onnx is damaged")
    if at != len(message):
        raise ValueError("model.onnx ends too early")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("model.onnx ends too early")
        byte = message[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
    raise ValueError("model.onnx is damaged")
