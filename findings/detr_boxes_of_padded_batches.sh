#!/usr/bin/env bash
# One would guess: DETR's image processor turns boxes into targets, and post_process_object_detection, which is given the
# size of each picture, turns boxes of that form back: a model that predicts its targets exactly gets the boxes of the file.
# What happens: so it is for a picture alone. In a batch of a wide and a tall picture, each is padded, the targets are
# relative to the padded canvas, and they are turned back relative to the picture: a box of 128 x 64 pixels comes back as
# 128 x 32 in one picture and 64 x 64 in the other, so a perfect detector scores badly. RT-DETR's processor, which
# stretches every picture to one square, returns them as they were.
# Source: DetrImageProcessor.pad in transformers updates annotations for the padded size (update_bboxes), and
# post_process_object_detection multiplies by target_sizes alone.
# Way out: one size for all pictures, or turn boxes back by the padded size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 pillow
cat > "$folder/boxes.py" <<'P'
from types import SimpleNamespace

import torch
import transformers
from PIL import Image
from transformers import DetrImageProcessor, RTDetrImageProcessor

wide, tall = Image.new("RGB", (640, 320)), Image.new("RGB", (320, 640))
truth = {"category_id": 0, "bbox": [64, 32, 128, 64], "area": 128 * 64, "iscrowd": 0}
for kind in (DetrImageProcessor, RTDetrImageProcessor):
    for pictures in ([wide], [wide, tall]):
        annotations = [{"image_id": i, "annotations": [truth]} for i in range(len(pictures))]
        encoded = kind()(images=pictures, annotations=annotations, return_tensors="pt")
        perfect = SimpleNamespace(
            pred_boxes=torch.stack([labels["boxes"] for labels in encoded["labels"]]),
            logits=torch.tensor([[[9.0, -9.0]]] * len(pictures)),
        )
        sizes = [picture.size[::-1] for picture in pictures]
        found = kind().post_process_object_detection(perfect, threshold=0.5, target_sizes=sizes)
        corners = [[round(value) for value in each["boxes"][0].tolist()] for each in found]
        print(f"transformers {transformers.__version__}, {kind.__name__}, {len(pictures)} pictures: {corners}")
P
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/boxes.py" 2> /dev/null | tee "$folder/found"
grep -qF " DetrImageProcessor, 1 pictures: [[64, 32, 192, 96]]" "$folder/found"
grep -qF " DetrImageProcessor, 2 pictures: [[64, 16, 192, 48], [32, 32, 96, 96]]" "$folder/found"
grep -qF "RTDetrImageProcessor, 2 pictures: [[64, 32, 192, 96], [64, 32, 192, 96]]" "$folder/found"
