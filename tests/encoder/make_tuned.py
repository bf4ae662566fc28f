"""Writes tuned.onnx: a stand-in for a fine-tuned encoder, token ids → two margins.

It looks margins up by token and averages them. Needs the package onnx:
python tests/encoder/make_tuned.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
TOKENS, TIERS = 64, 2

rng = np.random.default_rng(0)
table = numpy_helper.from_array(rng.normal(size=(TOKENS, TIERS)).astype(np.float32), "table")
nodes = [
    helper.make_node("Gather", ["table", "input_ids"], ["found"]),
    helper.make_node("ReduceMean", ["found"], ["margins"], axes=[1], keepdims=0),
]
given = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])
told = helper.make_tensor_value_info("margins", TensorProto.FLOAT, [1, TIERS])
graph = helper.make_graph(nodes, "tuned", [given], [told], [table])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, str(HERE / "tuned.onnx"))
