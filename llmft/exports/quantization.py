"""int8 for an ONNX program: weights and inputs of layers are rounded, with ranges that are the same for every batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

if TYPE_CHECKING:
    import onnx_ir

Batch = dict[str, torch.Tensor]
SINGLE = 1_800_000_000  # bytes that fit into one .onnx file: protobuf ends at 2 GiB

LAYERS = ("MatMul", "Gemm", "Gather", "Conv")
"""Operations that are computed in int8, where they have weights; of Gather, which looks up embeddings, these alone."""

FLOAT_OUTPUTS = ["MatMul", "Gemm"]
"""Operations whose outputs are not rounded: a bias or a residual is added to them in float32. To round them as well
took 0.25 ms of 3.5 of a MiniLM, and made the error of its logits a quarter larger."""

DEVIATIONS = 65.0
"""Range of the inputs, in standard deviations, from which on a layer is smoothed. A normal sample has about 10. Of
MiniLM's 36 layers three have 70 to 95 and made two thirds of the squared error of all; the others stay below 62."""

STRENGTH = 0.9
"""How much of an outlier the weights take over, from 0 to 1: alpha of Xiao et al. 2023. Of 0.5, 0.7, 0.8, 0.9, and 1.0,
a MiniLM's logits had the errors 0.146, 0.078, 0.075, 0.069, and 0.080; with these layers in float32 it was 0.070."""


def quantize(file: Path, batches: list[Batch], rows: Sequence[Batch]) -> dict[str, Any]:
    """Turn an ONNX file into int8, the weights and the inputs of layers.

    The ranges of inputs are those of `rows`, once for all. Dynamic quantization finds them anew in every call, and over
    the whole batch, so that the answer to a text depends on the texts beside it: of 300 reviews four got another label.

    Returns:
        what export.json says of it: `quantization`; `smoothed_layers`, those with outliers in their inputs; and
        `float32_layers`, those that still have them and stay as they are.
    """
    import onnx_ir
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxRuntimeQuantizer, OnnxRuntimeStaticConfig
    from transformers.exporters.configs import ExportFormat

    program = onnx_ir.load(str(file))
    smoothed = smooth(program, outliers(program, batches), [*batches, *rows])
    kept = outliers(program, batches)
    weights = program.graph.initializers
    # Products of two activations, such as of queries and keys, and selections, such as of the first token.
    without = [
        node.name
        for node in program.graph
        if node.op_type in LAYERS and not any(given and given.name in weights for given in node.inputs)
    ]
    config = OnnxRuntimeStaticConfig(
        op_types_to_quantize=list(LAYERS),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*kept, *without],
        extra_options={"OpTypesToExcludeOutputQuantization": FLOAT_OUTPUTS},
    )
    quantizer = OnnxRuntimeQuantizer(config, calibration_dataset=list(rows))
    save(quantizer.quantize(program, dict(batches[0]), ExportFormat.ONNX), file)
    return {"quantization": "static", "smoothed_layers": smoothed, "float32_layers": kept}


def save(program: "onnx_ir.Model", file: Path) -> None:
    """Write a program, with large weights in a file beside it."""
    import onnx_ir

    size = sum(weights.const_value.nbytes for weights in program.graph.initializers.values() if weights.const_value)
    onnx_ir.save(program, str(file), external_data=f"{file.name}.data" if size > SINGLE else None)


def outliers(program: "onnx_ir.Model", batches: Sequence[Batch]) -> list[str]:
    """The names of the layers that int8 would spoil: an input in any of these batches has values far above the rest.

    Quantization rounds the inputs of a layer to 256 steps between the smallest and the largest. If a few values
    are a hundred times larger than the others, the others fall into one or two steps.
    """
    layers = [node for node in program.graph if node.op_type in ("MatMul", "Gemm") and _weights(program, node)]
    found: set[str] = set()
    for values in inputs_of(program, layers, batches):
        found |= {name for name, array in values.items() if spread(array) > DEVIATIONS}
    return [str(layer.name) for layer in layers if _given(layer) in found]


def smooth(program: "onnx_ir.Model", names: Sequence[str], batches: Sequence[Batch]) -> list[str]:
    """Divide each channel of the inputs of some layers by a factor, and multiply its weights by it.

    The outputs stay, and outliers, which stand in few channels, are spread over weights, which are rounded by channel.
    Source: Xiao et al. 2023, SmoothQuant, equation 4. The division costs 2% of a MiniLM, and float32 in three of 36
    layers cost 20%.

    Returns:
        the names of the layers, without those whose weights are not a matrix that the input is multiplied with.
    """
    import onnx_ir

    layers = [node for node in program.graph if node.name in names and node.op_type == "MatMul"]
    greatest: dict[str, numpy.ndarray] = {}
    for values in inputs_of(program, layers, batches):
        for name, array in values.items():
            largest = numpy.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
            greatest[name] = numpy.maximum(greatest.get(name, largest), largest)
    for layer in layers:
        given, weights = layer.inputs
        assert given is not None and weights is not None and weights.const_value is not None
        matrix = weights.const_value.numpy()
        tiny = numpy.finfo(numpy.float32).eps
        share = numpy.maximum(greatest[str(given.name)], tiny) ** STRENGTH
        factors = share / numpy.maximum(numpy.abs(matrix).max(axis=1), tiny) ** (1 - STRENGTH)
        factors = (factors / numpy.exp(numpy.log(factors).mean())).astype(numpy.float32)
        inverse, scaled = (
            onnx_ir.Value(name=f"{layer.name}_{name}", const_value=onnx_ir.tensor(array, name=f"{layer.name}_{name}"))
            for name, array in (("inverse", 1 / factors), ("weights", matrix * factors[:, None]))
        )
        program.graph.initializers.add(inverse)
        program.graph.initializers.add(scaled)
        divided = onnx_ir.node("Mul", [given, inverse], name=f"{layer.name}_smooth")
        program.graph.insert_before(layer, divided)
        layer.replace_input_with(0, divided.outputs[0])
        layer.replace_input_with(1, scaled)
        if not weights.uses() and not weights.is_graph_output():
            program.graph.initializers.pop(str(weights.name))
    return [str(layer.name) for layer in layers]


def inputs_of(
    program: "onnx_ir.Model", layers: Sequence["onnx_ir.Node"], batches: Sequence[Batch]
) -> Iterator[dict[str, numpy.ndarray]]:
    """For each batch, the values that layers of a program are given, by name. Inputs of the program are left out."""
    import onnx
    import onnx_ir
    import onnxruntime

    proto = onnx_ir.to_proto(program)
    given = {graph_input.name for graph_input in proto.graph.input}
    watched = [name for name in dict.fromkeys(map(_given, layers)) if name not in given]
    if not watched:  # of no names onnxruntime gives all outputs
        return
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in watched)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [graph_input.name for graph_input in session.get_inputs()]
    for batch in batches:
        yield dict(zip(watched, session.run(watched, {name: batch[name].numpy() for name in inputs}), strict=True))


def spread(values: numpy.ndarray) -> float:
    """The range of values in standard deviations; 0 where all are alike."""
    deviation = float(numpy.std(values))
    return float(numpy.ptp(values)) / deviation if deviation else 0.0


def _given(layer: "onnx_ir.Node") -> str:
    return str(layer.inputs[0] and layer.inputs[0].name)


def _weights(program: "onnx_ir.Model", node: "onnx_ir.Node") -> bool:
    return node.inputs[1] is not None and node.inputs[1].name in program.graph.initializers
