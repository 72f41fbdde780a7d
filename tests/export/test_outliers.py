"""Layers whose inputs have outliers."""

import numpy
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from llmft.exports.quantization import DEVIATIONS, outliers, smooth, spread

RANDOM = numpy.random.default_rng(0)


def test_the_range_is_counted_in_deviations() -> None:
    assert spread(numpy.array([[1.0, -1.0]])) == pytest.approx(2)
    assert spread(numpy.ones((2, 3))) == 0


def test_a_normal_sample_has_no_outliers_and_one_value_makes_one() -> None:
    values = RANDOM.normal(size=10_000)
    assert spread(values) < 10
    values[0] = 1000
    assert spread(values) > DEVIATIONS


def program(shared: bool) -> onnx_ir.Model:
    """x + 1 -> two products, the first by `w`, the second by `w` too or by `v`."""
    constants = {"one": numpy.ones(256, numpy.float32)} | {
        name: RANDOM.normal(size=(256, 5)).astype(numpy.float32) for name in "wv"
    }
    if shared:
        del constants["v"]
    nodes = [
        helper.make_node("Add", ["x", "one"], ["h"], name="add"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="first"),
        helper.make_node("MatMul", ["h", "w" if shared else "v"], ["z"], name="second"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 256])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length", 5]) for name in "yz"]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(c, n) for n, c in constants.items()]
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def outputs(model: onnx_ir.Model, x: torch.Tensor) -> list[numpy.ndarray]:
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    return session.run(["y", "z"], {"x": x.numpy()})


@pytest.mark.parametrize("shared", [False, True])
def test_smoothing_keeps_the_outputs_and_ends_the_outliers(shared: bool) -> None:
    batch = {"x": torch.randn(4, 50, 256, generator=torch.Generator().manual_seed(0))}
    batch["x"][1, 7, 3] = 1000
    model = program(shared)
    before = outputs(model, batch["x"])
    assert outliers(model, [batch]) == ["first", "second"]
    assert smooth(model, ["first"], [batch]) == ["first"]
    assert outliers(model, [batch]) == ["second"], "the other layer reads what it has read before"
    assert smooth(model, ["second"], [batch]) == ["second"]
    assert outliers(model, [batch]) == []
    onnx.checker.check_model(onnx_ir.to_proto(model))
    for one, other in zip(before, outputs(model, batch["x"]), strict=True):
        # Sums of 256 numbers of up to 1000, in another order of rounding.
        numpy.testing.assert_allclose(one, other, atol=0.02)
