#!/usr/bin/env bash
# One would guess: `no_repeat_ngram_size=3` keeps `generate` from writing the same three tokens twice. That is what
# GenerationConfig says of it ("all ngrams of that size can only occur once"), and what it does for T5, BART and Marian.
# What happens: for a model without an encoder, the n-grams of the prompt count as written. A chat model whose prompt
# says "Blue Harbor Hotel" can't write that name once: it gets a score of minus infinity, and a near miss is written.
# Source: NoRepeatNGramLogitsProcessor in transformers/generation/logits_process.py is given prompt and answer as one;
# its own docstring says so, the option's does not.
# Way out: a processor of one's own that is handed what stands behind the prompt.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.14.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
decoder = GPT2LMHeadModel(
    GPT2Config(vocab_size=16, n_positions=32, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=1, pad_token_id=0)
)
encoder_decoder = T5ForConditionalGeneration(
    T5Config(vocab_size=16, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1, decoder_start_token_id=0)
)
prompt = torch.tensor([[5, 6, 7, 9, 5, 6]])  # the answer may begin with 7, as "5 6 7" was not written by the model
banned = {}
for name, model in (("GPT-2", decoder), ("T5", encoder_decoder)):
    found = model.eval().generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=1,
        do_sample=False,
        no_repeat_ngram_size=3,
        output_scores=True,
        return_dict_in_generate=True,
    )
    banned[name] = [token for token, score in enumerate(found.scores[0][0].tolist()) if score == float("-inf")]
    print(f"{name}: tokens that the first step may not write: {banned[name]}")
assert banned["T5"] == []
assert banned["GPT-2"] == [7], "the prompt does not count any more"
PYTHON
