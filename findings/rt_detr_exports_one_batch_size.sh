#!/usr/bin/env bash
# One would guess: RT-DETR, traced by torch.export with a batch of two images and a first axis that is declared dynamic,
# takes any number of images, as DETR and YOLOS do.
# What happens: "Constraints violated": the model says `batch_size = len(source_flatten)`, and Python's len gives an
# integer, so that the trace is of two images alone. The value is not even used, unless learn_initial_query is set.
# RT-DETR v2 and D-FINE have the same line.
# Source: RTDetrModel.forward in transformers/models/rt_detr/modeling_rt_detr.py.
# Way out: while tracing, a global `len` in that module that gives the size of a tensor as its shape has it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 torch==2.14.1
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import torch
import transformers
from transformers import RTDetrConfig, RTDetrForObjectDetection
from transformers.models.rt_detr import modeling_rt_detr

print("transformers", transformers.__version__, "torch", torch.__version__)
inner = {"model_type": "rt_detr_resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
inner |= {"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]}
sizes = {"encoder_hidden_dim": 16, "encoder_in_channels": [16, 16, 16], "encoder_ffn_dim": 16, "d_model": 16}
sizes |= {"decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 16, "decoder_layers": 1, "num_queries": 5}
sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_denoising": 0}
model = RTDetrForObjectDetection(RTDetrConfig(backbone_config=inner, **sizes)).eval()
axes = {"pixel_values": {0: torch.export.Dim.DYNAMIC}}


def trace():
    with torch.no_grad():
        program = torch.export.export(model, (), {"pixel_values": torch.ones(2, 3, 64, 64)}, dynamic_shapes=axes, strict=False)
        return len(program.module()(pixel_values=torch.ones(3, 3, 64, 64)).logits)


try:
    found = trace()
except Exception as error:
    found = str(error).split("!")[0]
print("as it is:", found)
modeling_rt_detr.len = lambda value: value.shape[0] if isinstance(value, torch.Tensor) else len(value)
mended = trace()
print("with a len of its own:", mended, "images")
assert mended == 3
assert found != 3, "any number of images may be given now"
P
