#!/usr/bin/env bash
# One would guess: AutoTokenizer.from_pretrained gives back the tokenizer that save_pretrained wrote, whatever model lies
# in the folder, since tokenizer.json holds its normalizer, its pre-tokenizer and its vocabulary.
# What happens: with "model_type": "qwen2" in config.json (and some forty other types), transformers ignores the class in
# tokenizer_config.json, builds Qwen2Tokenizer from the vocabulary alone, and texts get other tokens, without a word.
# Source: MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS in transformers/models/auto/tokenization_auto.py.
# Way out: PreTrainedTokenizerFast.from_pretrained reads what was saved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import json

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2, "sat": 3}, unk_token="[UNK]"))
words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained("model")
found = {}
for kind in ("bert", "qwen2"):
    with open("model/config.json", "w") as stream:
        json.dump({"model_type": kind}, stream)
    for name, loader in (("plain", PreTrainedTokenizerFast), ("auto", AutoTokenizer)):
        try:
            tokenizer = loader.from_pretrained("model")
            found[kind, name] = (type(tokenizer).__name__, tokenizer("A cat sat")["input_ids"])
        except Exception as error:
            found[kind, name] = (type(error).__name__, None)
        print(kind, name, *found[kind, name])
assert found["bert", "auto"][1] == [1, 2, 3]
assert found["qwen2", "plain"][1] == [1, 2, 3]
assert found["qwen2", "auto"][1] != [1, 2, 3], "AutoTokenizer reads what was saved now"
P
