#!/usr/bin/env bash
# One would guess: freeze_backbone_batch_norms, which is true by default, holds the statistics and gains of batch
# normalization in the backbone of RT-DETR, and otherwise leaves its maps of features as they are.
# What happens: every BatchNorm2d becomes an RTDetrFrozenBatchNorm2d. In most convnets of timm (EfficientNet, MobileNet,
# RegNet) the layer is a BatchNormAct2d, a subclass that has the activation inside: it goes, without a word, and the
# backbone is nearly linear. A ResNet of timm, which has its activations apart, stays as it is.
# Source: replace_batch_norm in transformers/models/rt_detr/modeling_rt_detr.py.
# Way out: freeze_backbone_batch_norms=False, and freeze_batch_norm_2d=True in TimmBackboneConfig, which timm does right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 timm==1.0.31 torch==2.14.1 torchvision==0.29.1
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import timm
import torch
import transformers
from transformers import RTDetrConfig, TimmBackboneConfig
from transformers.models.rt_detr.modeling_rt_detr import RTDetrConvEncoder

print("transformers", transformers.__version__, "timm", timm.__version__)
sums = {}
for backbone in ("resnet18", "tf_efficientnet_lite0"):
    for freeze in (False, True):
        torch.manual_seed(0)
        inner = TimmBackboneConfig(backbone=backbone, out_indices=[2, 3, 4])
        encoder = RTDetrConvEncoder(RTDetrConfig(backbone_config=inner, freeze_backbone_batch_norms=freeze)).eval()
        with torch.no_grad():
            maps = encoder.model(torch.ones(1, 3, 64, 64) * torch.linspace(-1, 1, 64)).feature_maps
        sums[backbone, freeze] = [float(part.double().sum()) for part in maps]
        names = {type(part).__name__ for part in encoder.modules() if "atchNorm" in type(part).__name__}
        print(backbone, "frozen" if freeze else "as it is", *sorted(names), sums[backbone, freeze])


def same(backbone):
    frozen, plain = (torch.tensor(sums[backbone, freeze]) for freeze in (True, False))
    return torch.allclose(frozen, plain, rtol=1e-3)


assert same("resnet18")
assert not same("tf_efficientnet_lite0"), "activations stay now"
P
