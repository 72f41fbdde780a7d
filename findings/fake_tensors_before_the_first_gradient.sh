#!/usr/bin/env bash
# One would guess: on a machine without an accelerator, a process that has computed gradients on one thread can fork, and
# the child can compute gradients too. Without torch.export and torch.compile it is so.
# What happens: if fake tensors (torch.export, torch.compile, make_fx) were used before the first gradient of a process,
# that gradient starts eight threads, one for each of eight GPUs that are not there, and a child that is forked afterwards
# raises "Unable to handle autograd's threading in combination with fork-based multiprocessing". If the first gradient
# comes before, there are no threads, and children work.
# Source: FakeTensorMode.__enter__ in torch/_subclasses/fake_tensor.py calls torch._C._ensureCUDADeviceGuardSet where
# there is no CUDA: its device guard counts eight devices, and the autograd engine, which looks once, starts a thread each.
# Way out: compute any gradient first, or start new processes instead of forking.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1
cat > "$folder/first.py" <<'P'
import os
import sys
from pathlib import Path

import torch


def gradient() -> None:
    torch.ones(1, requires_grad=True).sum().backward()


def export() -> None:
    torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),))


for step in (gradient, export) if sys.argv[1] == "gradient" else (export, gradient):
    step()
names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
threads = sum(name.startswith("pt_autograd") for name in names)
child = os.fork()
if child == 0:
    try:
        gradient()
    except RuntimeError:
        os._exit(1)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
works = "works" if code == 0 else "fails"
print(f"torch {torch.__version__.split('+')[0]}, {sys.argv[1]} first: {threads} threads, and a gradient in a forked child {works}")
P
export CUDA_VISIBLE_DEVICES=
for first in gradient export; do
    "$folder/venv/bin/python" "$folder/first.py" "$first" 2> /dev/null
done | tee "$folder/found"
grep -q "gradient first: 0 threads, .* works" "$folder/found"
grep -q "export first: 8 threads, .* fails" "$folder/found"
