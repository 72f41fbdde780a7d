#!/usr/bin/env bash
# torch: Adam's weight decay sets the rows of an embedding to 0 that no batch holds, however small it is.
#
# One would guess: that `weight_decay=1e-6` in torch's Adam moves the rows of an embedding that no batch holds by next to
# nothing, and ten times less than `weight_decay=1e-5`.
# What happens: it sets them to 0, at the same speed whatever the number is. Adam adds `weight_decay * weight` to the
# gradient, and divides by the root of its mean square. Of a row without any other gradient that is the decay itself,
# so the quotient is 1: every step moves each weight by `lr` towards 0. Items and users without interactions lose
# their vectors so. AdamW takes the decay out of the quotient, and the rows stay.
# Source: torch/optim/adam.py, `grad = grad.add(param, alpha=weight_decay)`; Loshchilov & Hutter 2019, arXiv:1711.05101.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)


def after_training(optimizer: type, decay: float) -> float:
    """The largest weight in the row that no batch holds, after 200 steps at a learning rate of 0.01; at first it is 1."""
    table = torch.nn.Embedding(2, 4)
    torch.nn.init.ones_(table.weight)
    stepping = optimizer(table.parameters(), lr=0.01, weight_decay=decay)
    for _ in range(200):
        stepping.zero_grad()
        table(torch.tensor([0])).square().sum().backward()  # row 1 is never looked up
        stepping.step()
    return table.weight[1].abs().max().item()


for decay in (1e-4, 1e-5, 1e-6):
    plain, decoupled = (after_training(kind, decay) for kind in (torch.optim.Adam, torch.optim.AdamW))
    print(f"weight_decay={decay:g}: the unseen row has {plain:.4f} by Adam, {decoupled:.4f} by AdamW")
    assert plain < 0.05
    assert decoupled > 0.99
PYTHON
