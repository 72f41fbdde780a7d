#!/usr/bin/env bash
# One would guess: AutoModelForImageClassification.from_config(DeiTConfig()) builds a model with random weights, as
# from_config does for a ViTConfig.
# What happens: TypeError: 'NoneType' object is not iterable. Two classes are registered for DeiT (and for LeViT and
# Perceiver); to choose one, transformers iterates over config.architectures, which is None in a new config.
# Source: _get_model_class in transformers/models/auto/auto_factory.py, getattr(config, "architectures", []).
# Way out: config.architectures = [], or the name of the class that is meant.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 torch==2.14.1
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import torch
import transformers
from transformers import AutoConfig, AutoModelForImageClassification

print("transformers", transformers.__version__, "torch", torch.__version__)
small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
for kind in ("vit", "deit"):
    for architectures in (None, []):
        config = AutoConfig.for_model(kind, **small)
        config.architectures = architectures
        try:
            found = type(AutoModelForImageClassification.from_config(config)).__name__
        except TypeError as error:
            found = f"TypeError: {error}"
        print(kind, architectures, found)
        failed = found.startswith("TypeError")
        assert failed == (kind == "deit" and architectures is None), "from_config has changed"
P
