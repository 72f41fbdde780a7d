#!/usr/bin/env bash
# The package implicit: lists of recommendations hold items that were filtered out, if too few others are left.
#
# One would guess: that `recommend(..., filter_already_liked_items=True)` lists fewer than N items then, and never one
# that the user has.
# What happens: if fewer than N items are left, the list is filled up to N with the very items that were filtered. They
# have the score -3.4e38, the smallest float32, and nothing else tells them apart: a metric that reads the ids alone
# counts what the user already had.
# Source: https://github.com/benfred/implicit (`recommend` in implicit/cpu/matrix_factorization_base.py, by `topk`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet implicit==0.7.3 numpy==2.4.6 scipy==1.17.1
OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

print("implicit", version("implicit"), "numpy", version("numpy"), "scipy", version("scipy"))
# Three users, five items. User 0 has the items 0 to 3, so that 4 is the only one left.
users, items = [0, 0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 0, 1, 2]
had = csr_matrix((numpy.ones(7, numpy.float32), (users, items)), shape=(3, 5))
model = AlternatingLeastSquares(factors=4, iterations=3, random_state=0, num_threads=1)
model.fit(had, show_progress=False)
listed, scores = model.recommend(0, had[0], N=3, filter_already_liked_items=True)
print("user 0 has [0, 1, 2, 3] and is recommended", listed.tolist(), "with the scores", scores.tolist())
assert len(listed) == 3
assert listed[0] == 4
assert {*listed[1:].tolist()} < {0, 1, 2, 3}
assert (scores[1:] == numpy.finfo(numpy.float32).min).all()
PYTHON
