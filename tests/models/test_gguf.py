"""A GGUF file as `model.path`: its sizes, its tokenizer, its weights, and files that are none."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft.models import tokenizers
from llmft.models.build import build
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError

HEAD = "AutoModelForCausalLM"
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefgh", "Ġ", "ab", "Ġa"]
TEMPLATE = "{% for message in messages %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}"
WIDTH, HEADS, INNER = 32, 2, 64


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with tied embeddings, in half precision."""
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama")


def written(file: Path, architecture: str) -> Path:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(WORDS) - 3))
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = numpy.random.default_rng(0)
    square, wide = (WIDTH, WIDTH), (INNER, WIDTH)
    shapes: dict[str, Any] = {"token_embd": (len(WORDS), WIDTH), "output_norm": (WIDTH,)}
    shapes |= {f"blk.0.attn_{name}": square for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.attn_norm": (WIDTH,), "blk.0.ffn_norm": (WIDTH,)}
    shapes |= {"blk.0.ffn_gate": wide, "blk.0.ffn_up": wide, "blk.0.ffn_down": wide[::-1]}
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype(numpy.float32 if len(shape) == 1 else numpy.float16)
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def of(**keys: Any) -> ModelConfig:
    return ModelConfig.model_validate(keys)


def test_a_gguf_file_holds_a_whole_model(llama: Path, here: Path) -> None:
    model = of(path=str(llama), sha256=hashlib.sha256(llama.read_bytes()).hexdigest())
    tokenizer = tokenizers.load(model, [])
    assert tokenizers.tokenizer_files(model) == [llama]
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab a")["input_ids"]) == ["ab", "Ġa"]
    assert tokenizer.chat_template == TEMPLATE
    built = build(model, HEAD, {"vocab_size": len(tokenizer), "max_position_embeddings": 64})
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    first = numpy.random.default_rng(0).normal(size=(len(WORDS), WIDTH)).astype(numpy.float16)
    assert numpy.array_equal(built.get_input_embeddings().weight.detach().numpy(), first.astype(numpy.float32))
    assert built.get_output_embeddings().weight is built.get_input_embeddings().weight

    # What is saved is a model like any other, its embeddings tied.
    built.save_pretrained(here / "saved")
    tokenizer.save_pretrained(here / "saved")
    again = AutoModelForCausalLM.from_pretrained(here / "saved")
    ids = torch.tensor([[1, 3, 4, 12, 2]])
    assert torch.equal(again(ids).logits, built(ids).logits)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert AutoTokenizer.from_pretrained(here / "saved").chat_template == TEMPLATE


def test_a_run_from_a_gguf_file_leaves_a_model_like_any_other(llama: Path, llmft: Any, here: Path) -> None:
    letters = "abcdefgh"
    rows = [{"prompt": f"{one}{two} a", "response": two} for one in letters for two in letters]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        "+recipe=llm_instruct",
        "model=smollm2_gguf",
        f"model.path={llama}",
        "adapter=lora",
        "dataset=json",
        "dataset.train=rows.jsonl",
    )
    few = (
        "trainer.max_steps=4",
        "trainer.epochs=1",
        "task.generate=false",
        "task.max_length=32",
        "trainer.packing=true",
        "generation.max_new_tokens=8",
    )
    code, _, err = llmft("finetune", *words, *few, "run.dir=run")
    assert code == 0, err
    config = json.loads((here / "run/model/config.json").read_text())
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(here / "run/model")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert AutoTokenizer.from_pretrained(here / "run/model").chat_template == TEMPLATE
    code, _, err = llmft("eval", "run", "run.dir=again")
    assert code == 0, err
    scores = [json.loads((here / f"{name}/metrics.json").read_text())["test"] for name in ("run", "again")]
    assert scores[0] == scores[1]


def test_a_file_of_the_working_directory_is_not_taken_for_it(llama: Path, here: Path) -> None:
    (here / llama.name).write_bytes(b"GGUF, but not the one that is named")
    assert build(of(path=str(llama)), HEAD, {}).config.model_type == "llama"


def test_a_gguf_file_may_give_the_architecture_alone(llama: Path) -> None:
    built = build(of(path=str(llama), init="random", config={"num_hidden_layers": 2}), HEAD, {})
    assert len(built.model.layers) == 2
    assert built.config.hidden_size == WIDTH


WRONG = {
    "a file that is none": ("none.gguf", "none.gguf is not a GGUF file"),
    "a file that is cut short": ("cut.gguf", "cut.gguf cannot be read: "),
    "weights that are cut off": ("half.gguf", "half.gguf cannot be read: "),
    "an architecture that transformers does not read": ("other.gguf", "other.gguf cannot be read: "),
    "a file that is not there": ("missing.gguf", "must be a file, got missing.gguf, which does not exist. At the hub: model.path=OWNER/NAME/FILE.gguf."),
    "a file of no folder": ("./a/b/c.gguf", "must be a file, got a/b/c.gguf, which does not exist"),
    "a file of the hub without a network": ("a/b/c.gguf", "a/b is not a folder here, and the hub did not give it"),
    "another file than expected": ("llama.gguf", "must be the sha256 of"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_gguf_file_that_cannot_be_had_is_explained(name: str, llama: Path, here: Path) -> None:
    path, what = WRONG[name]
    whole = llama.read_bytes()
    (here / "none.gguf").write_bytes(b"safetensors")
    (here / "cut.gguf").write_bytes(whole[:300])
    (here / "half.gguf").write_bytes(whole[: len(whole) // 2])
    (here / "llama.gguf").write_bytes(whole)
    written(here / "other.gguf", "no_such_architecture")
    sha = "0" * 64 if name == "another file than expected" else None
    with pytest.raises(UserError) as error:
        build(of(path=path, sha256=sha), HEAD, {})
    assert what in str(error.value)


def test_the_package_that_reads_it_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.schema.problem.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'llmft\[gguf\]'"):
        tokenizers.load(of(path=str(llama)), [])


def test_reading_one_draws_no_bar_of_its_own() -> None:
    """transformers draws one whatever its own switch says."""
    program = "import llmft.cli; llmft.cli.main(['recipes']); from tqdm.auto import tqdm; list(tqdm(range(3)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr == ""
