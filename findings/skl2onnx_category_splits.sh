#!/usr/bin/env bash
# One would guess: skl2onnx converts a HistGradientBoostingClassifier that has `categorical_features`, or says that it
# can't. What happens: it writes a program without an error or a warning, in which every split by category has become
# `value <= 0`. Of 600 rows the model gets none wrong, and the program 200.
# Source: skl2onnx/common/tree_ensemble.py, add_tree_to_attribute_pairs_hist_gradient_boosting, reads `num_threshold` of
# every node, and neither `is_categorical` nor the bitset of its categories.
# (protobuf is held back: newer versions refuse the truth values that skl2onnx puts into a list of numbers, and no
# model of this kind is converted at all.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.18.0 protobuf==5.29.5 onnxruntime==1.22.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy
import onnxruntime
import skl2onnx
import sklearn
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier

print(f"scikit-learn {sklearn.__version__}, skl2onnx {skl2onnx.__version__}, onnxruntime {onnxruntime.__version__}")
cells = numpy.arange(600, dtype=numpy.float32)[:, None] % 6
labels = (cells[:, 0] % 2 == 0).astype(int)  # the categories 0, 2 and 4
model = HistGradientBoostingClassifier(categorical_features=[0], max_iter=20).fit(cells, labels)
program = to_onnx(model, cells[:1])
session = onnxruntime.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
found = session.run(None, {session.get_inputs()[0].name: cells})[0]
original, converted = (model.predict(cells) != labels).sum(), (found != labels).sum()
print(f"mistakes in 600 rows: {original} by scikit-learn, {converted} by the program")
assert original == 0
assert converted == 200, "skl2onnx has changed"
PYTHON
