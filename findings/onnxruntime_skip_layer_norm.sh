#!/usr/bin/env bash
# One would guess: the fusions that onnxruntime makes by default are faster than the nodes that they replace.
# What happens: on a CPU, with one thread, SkipLayerNormalization, which replaces Add and LayerNormalization, takes
# several times as long: 8.1 instead of 1.2 ms for 12 of them on 8 x 36 x 384 numbers. In a BERT of 6 layers in int8 that
# is 15% of the time of a row alone, and 22% of that of 8 rows. The outputs differ by rounding alone.
# Source: SkipLayerNormFusion is an optimizer of the level "extended", and the default is "all". Its kernel is
# onnxruntime/contrib_ops/cpu/skip_layer_norm.cc, that of the other onnxruntime/core/providers/cpu/nn/layer_norm_impl.cc.
# Way out: InferenceSession(..., disabled_optimizers=["SkipLayerNormFusion"]).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import statistics
import time

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__)
WIDTH, LAYERS = 384, 12
weights = [
    numpy_helper.from_array(numpy.ones(WIDTH, "float32"), "scale"),
    numpy_helper.from_array(numpy.zeros(WIDTH, "float32"), "bias"),
]
nodes, last = [], "x"
for n in range(LAYERS):
    nodes.append(helper.make_node("Add", [last, "y"], [f"sum{n}"]))
    nodes.append(helper.make_node("LayerNormalization", [f"sum{n}", "scale", "bias"], [f"out{n}"], axis=-1))
    last = f"out{n}"
shape = ["batch", "length", WIDTH]
given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def session(disabled):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )


sessions = {"default": session(None), "without the fusion": session(["SkipLayerNormFusion"])}
random = numpy.random.default_rng(0)
feed = {name: random.normal(size=(8, 36, WIDTH)).astype("float32") for name in "xy"}
seconds, outputs = {name: [] for name in sessions}, {}
for _ in range(60):
    for name, each in sessions.items():
        start = time.thread_time()
        (outputs[name],) = each.run(None, feed)
        seconds[name].append(time.thread_time() - start)
medians = {name: 1000 * statistics.median(times) for name, times in seconds.items()}
for name, milliseconds in medians.items():
    print(f"{name}: {milliseconds:.2f} ms")
assert numpy.abs(outputs["default"] - outputs["without the fusion"]).max() < 1e-4
assert medians["default"] > 2 * medians["without the fusion"], "the fusion is no longer slower"
P
