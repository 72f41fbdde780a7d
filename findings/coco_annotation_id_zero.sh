#!/usr/bin/env bash
# One would guess: the `id` of an annotation in a COCO file is a name, and any distinct integers do, 0 included. Programs
# that write COCO files with `enumerate` begin at 0.
# What happens: the object whose annotation has the id 0 is never counted as found. Of four objects that are all found
# exactly, the mAP is 0.564 instead of 1.0, in pycocotools and in faster-coco-eval
# alike. pycocotools says nothing; faster-coco-eval warns on standard error.
# Source: COCOeval.evaluateImg writes the id of the matched object into `dtMatches`, where 0 means "no match", and
# accumulate counts `dtm` as a boolean; the C++ of faster-coco-eval keeps to it.
# Way out: number the annotations from 1 before they are scored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pycocotools==2.0.11 faster-coco-eval==1.8.0
cat > "$folder/score.py" <<'P'
import contextlib
import io
from importlib.metadata import version

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

SIDES = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
box = [10, 10, 40, 40]
for name, (COCO, COCOeval) in SIDES.items():
    for first in (1, 0):
        objects = [
            {"id": first + i, "image_id": i + 1, "category_id": 1, "bbox": box, "area": 1600, "iscrowd": 0} for i in range(4)
        ]
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i + 1, "width": 100, "height": 100} for i in range(4)],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": objects,
        }
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
            exact = [{"image_id": i + 1, "category_id": 1, "bbox": box, "score": 0.9} for i in range(4)]
            scores = COCOeval(truth, truth.loadRes(exact), "bbox")
            scores.evaluate()
            scores.accumulate()
            scores.summarize()
        print(f"{name} {version(name)}, ids from {first}: mAP {scores.stats[0]:.3f}")
P
"$folder/venv/bin/python" "$folder/score.py" | tee "$folder/found"
test "$(grep -c 'ids from 1: mAP 1.000' "$folder/found")" = 2
test "$(grep -c 'ids from 0: mAP 0.564' "$folder/found")" = 2
