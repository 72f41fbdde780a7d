#!/usr/bin/env bash
# One would guess: a convolutional model that is built from its configuration begins with the gains (weights) of its batch
# normalization at 1, as torch makes them, and with running statistics that average over some ten batches (momentum 0.1).
# What happens: in transformers it depends on the architecture. EfficientNet and MobileViT draw the gains from a normal
# distribution around 0 with deviation 0.02, so hardly any signal passes and the loss stays that of chance for many steps;
# ResNet and MobileNetV2 begin at 1. EfficientNet and MobileNetV2 have a momentum of 0.99 or more in torch's sense, where
# it is the share of the newest batch: the statistics used in eval mode are those of the last training batch alone.
# Source: EfficientNetPreTrainedModel._init_weights and MobileViTPreTrainedModel._init_weights in transformers;
# EfficientNetConfig.batch_norm_momentum = 0.99 and MobileNetV2's 0.997 are numbers of TensorFlow, where the momentum is
# the share of the old statistics.
# Way out: after building a model without weights, set the gains to 1 and the momentum to 0.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0
cat > "$folder/gains.py" <<'P'
import torch
import transformers
from transformers import AutoConfig, AutoModel

for kind in ("efficientnet", "mobilevit", "mobilenet_v2", "resnet"):
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    gains = torch.cat([norm.weight.detach() for norm in norms])
    momentum = max(norm.momentum for norm in norms)
    print(f"transformers {transformers.__version__}, {kind}: mean size of a gain {gains.abs().mean():.3f}, momentum {momentum}")
P
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/gains.py" 2> /dev/null | tee "$folder/found"
grep -q "efficientnet: mean size of a gain 0.01[0-9], momentum 0.99$" "$folder/found"
grep -q "mobilevit: mean size of a gain 0.01[0-9], momentum 0.1$" "$folder/found"
grep -q "mobilenet_v2: mean size of a gain 1.000, momentum 0.997$" "$folder/found"
grep -q "resnet: mean size of a gain 1.000, momentum 0.1$" "$folder/found"
