#!/usr/bin/env bash
# One would guess: torchvision's SanitizeBoundingBoxes drops boxes without area, and their labels and instance masks. A
# mask of the whole picture, (1, H, W) or (H, W) as semantic segmentation has it, stays as it is.
# What happens: a mask goes along whenever its first dimension happens to be the number of boxes: (1, H, W) in a picture
# whose only box is dropped becomes (0, H, W), and (H, W) in a picture with H boxes loses lines. With any other number it
# stays as it is.
# Source: SanitizeBoundingBoxes.transform in torchvision/transforms/v2/_misc.py indexes every tv_tensors.Mask with a
# boolean a box, and returns it unchanged where that raises IndexError.
# Way out: drop boxes oneself, or keep masks of whole pictures out of the call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 numpy
cat > "$folder/sanitize.py" <<'P'
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

for shape in ((1, 8, 8), (8, 8)):
    for boxes in (1, 3, 8):
        sample = {
            "boxes": tv_tensors.BoundingBoxes(torch.zeros(boxes, 4), format="XYXY", canvas_size=(8, 8)),
            "labels": torch.arange(boxes),
            "mask": tv_tensors.Mask(torch.ones(*shape)),
        }
        left = v2.SanitizeBoundingBoxes()(sample)["mask"]
        print(f"torchvision {torchvision.__version__.split('+')[0]}, {boxes} boxes without area, mask {shape}: {tuple(left.shape)}")
P
"$folder/venv/bin/python" "$folder/sanitize.py" | tee "$folder/found"
grep -qF "1 boxes without area, mask (1, 8, 8): (0, 8, 8)" "$folder/found"
grep -qF "3 boxes without area, mask (1, 8, 8): (1, 8, 8)" "$folder/found"
grep -qF "3 boxes without area, mask (8, 8): (8, 8)" "$folder/found"
grep -qF "8 boxes without area, mask (8, 8): (0, 8)" "$folder/found"
