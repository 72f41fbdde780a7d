#!/usr/bin/env bash
# One would guess: pixels of the index that SegFormer ignores (255) change nothing about its loss, with one label (binary
# segmentation) as with several.
# What happens: with one label the ignored pixels are left out of the sum and not out of its divisor. Where half of a mask
# is ignored, the loss and its gradients are halved, and a picture that is wholly ignored has the loss 0. With two labels
# half a mask changes nothing, as it should, and a wholly ignored picture has the loss NaN.
# Source: SegformerForSemanticSegmentation.forward in transformers: for one label, BCEWithLogitsLoss(reduction="none")
# times the mask of valid pixels, then .mean() over all pixels; for several, CrossEntropyLoss(ignore_index=...).
# Way out: compute the loss from `logits`, as a sum over valid pixels divided by their number, at least 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0
cat > "$folder/loss.py" <<'P'
import torch
import transformers
from transformers import SegformerConfig, SegformerForSemanticSegmentation

sizes = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
for labels in (1, 2):
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=labels, **sizes)).eval()
    torch.nn.init.zeros_(model.decode_head.classifier.weight)  # every pixel then has the same loss, ln 2
    for ignored in (0, 16, 32):
        mask = torch.zeros(1, 32, 32, dtype=torch.long)
        mask[:, :ignored] = 255
        with torch.no_grad():
            loss = model(torch.zeros(1, 3, 32, 32), labels=mask).loss
        print(f"transformers {transformers.__version__}, {labels} labels, {ignored} of 32 lines ignored: loss {loss:.4f}")
P
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/loss.py" 2> /dev/null | tee "$folder/found"
grep -q "1 labels, 0 of 32 lines ignored: loss 0.6931" "$folder/found"
grep -q "1 labels, 16 of 32 lines ignored: loss 0.3466" "$folder/found"
grep -q "1 labels, 32 of 32 lines ignored: loss 0.0000" "$folder/found"
grep -q "2 labels, 16 of 32 lines ignored: loss 0.6931" "$folder/found"
grep -q "2 labels, 32 of 32 lines ignored: loss nan" "$folder/found"
