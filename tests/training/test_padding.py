"""An answer is the same alone and in company, for every architecture of transformers that can be made tiny."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from llmft import tasks
from llmft.data.arrow import to_dataset
from llmft.data.source import Table
from llmft.models.build import build
from llmft.models.generate import set_generation
from llmft.models.tokenizers import train as train_tokenizer
from llmft.schema.inference import GenerationConfig
from llmft.schema.model import ModelConfig, TokenizerConfig
from llmft.schema.tasks import task_type
from llmft.tasks.language_models.language_model import LanguageState
from llmft.tasks.language_models.masked_lm import MaskedState
from llmft.tasks.targets.single_label import SingleLabel
from llmft.tasks.task import Task
from llmft.tasks.text.question_answering import QuestionState
from llmft.tasks.text.text_classification import TextState
from llmft.tasks.text.token_classification import EntityState
from llmft.tasks.tokenizer import Tokenizer
from llmft.training.evaluation import predict
from llmft.training.features import FeatureSet, encode
from tests.families import config_of, families

LENGTHS = (12, 3, 7, 1, 9, 7)
WORDS = ["tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda", "sift", "gron", "lumo", "mirk"]
TEXTS = [" ".join(WORDS[(3 * row + place) % len(WORDS)] for place in range(n)) for row, n in enumerate(LENGTHS)]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, TokenizerConfig(size=200))


STATES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "text_classification": (lambda: TextState(SingleLabel(["a", "b", "c"]), tokenizer(), 64, False), ("text",)),
    "token_classification": (lambda: EntityState(["a"], tokenizer(), 64, 8, False, 0), ("text",)),
    "question_answering": (lambda: QuestionState(tokenizer(), 64), ("question", "context")),
    "masked_lm": (lambda: MaskedState(tokenizer(), 64), ("text",)),
    "causal_lm": (lambda: LanguageState(tokenizer(), 64), ("text",)),
    "causal_lm asked": (lambda: LanguageState(tokenizer(), 64), ("text",)),
}


def prepared(name: str) -> tuple[Task[Any], FeatureSet]:
    """The task, and the features of TEXTS."""
    kind = task_type(name.split()[0])
    assert kind is not None
    make, columns = STATES[name]
    options = {"name": name.split()[0]} | ({"stride": 8} if "question" in columns else {})
    task = tasks.build(kind.model_validate(options)).with_state(make())
    values = {column: TEXTS if column != "question" else ["tavo"] * len(TEXTS) for column in columns}
    task = task.for_inference() if name.endswith("asked") else task
    return task, encode(task, to_dataset(Table(values, [str(row) for row in range(len(TEXTS))])))


def difference(task: Task[Any], model: PreTrainedModel, features: FeatureSet) -> float:
    """max|a - b| / max|a| of the outputs of rows alone and together."""
    found = [predict(task, model, features, size) for size in (1, len(features))]
    if task.state.inference:  # texts, which end earlier than those beside them
        return float(found[0].answers != found[1].answers)
    alone, together = (one.outputs for one in found)
    alone, together = ([o[0] if isinstance(o, tuple) else o for o in outputs] for outputs in (alone, together))
    a, b = (numpy.concatenate([numpy.ravel(output) for output in outputs]) for outputs in (alone, together))
    return float(numpy.abs(a - b).max() / numpy.abs(a).max())


# The families that people use, and some that mix padding into their tokens.
NAMED = {"albert", "bart", "bert", "bloom", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "falcon"}
NAMED |= {"fnet", "gemma2", "gpt2", "gpt_neox", "llama", "mamba", "modernbert", "mpt", "nystromformer", "opt"}
NAMED |= {"qwen2", "qwen3", "roberta", "t5", "xlm", "xlnet"}


@pytest.mark.parametrize(
    ("name", "kinds", "least"),
    [
        ("text_classification", NAMED, 24),
        ("token_classification", {"bert", "convbert", "deberta-v2", "fnet", "gpt2", "qwen3", "roberta", "xlnet"}, 8),
        ("question_answering", {"bert", "convbert", "gpt2", "qwen3", "roberta", "t5", "xlnet"}, 7),
        ("masked_lm", {"bert", "convbert", "deberta-v2", "fnet", "modernbert", "roberta"}, 6),
        ("causal_lm asked", {"bart", "bloom", "gpt2", "llama", "mamba", "opt", "qwen3"}, 7),
        *(pytest.param(name, set(), 20, marks=pytest.mark.slow) for name in STATES),
    ],
)
def test_company_changes_no_answer(name: str, kinds: set[str], least: int) -> None:
    task, features = prepared(name)
    needed = task.model_kwargs()
    more = {key: value for key, value in needed.items() if key.endswith("_id") or key == "num_labels"}
    more |= {"decoder_start_token_id": 1, "eos_token_id": task.state.tokenizer.sep_token_id, "summary_type": "first"}
    tried, wrong = [], {}
    for kind, model in families(task.head, len(tokenizer()), kinds, **more):
        if "asked" in name:
            set_generation(model, GenerationConfig(max_new_tokens=4))
        try:
            found = difference(task, model, features)
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError):
            assert kind not in NAMED, kind
            continue  # it needs more than a text, such as boxes or pictures, or a longer one
        tried.append(kind)
        if not found < 2e-5:
            wrong[kind] = found
    assert not wrong
    assert len(tried) >= least


def test_padding_goes_where_the_head_does_not_look() -> None:
    assert Tokenizer.of(tokenizer()).padding_side == "right"
    left = train_tokenizer(TEXTS, TokenizerConfig(size=200))
    left.padding_side = "left"  # as GPT-2, Qwen or Llama may be saved: positions would count padding
    assert Tokenizer.of(left).padding_side == "right"
    last = train_tokenizer(TEXTS, TokenizerConfig(size=200))
    last.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A [SEP] [CLS]", special_tokens=[(t, last.convert_tokens_to_ids(t)) for t in ("[SEP]", "[CLS]")]
    )
    assert Tokenizer.of(last).padding_side == "left"  # XLNet reads the last column


ROWS: dict[str, dict[str, list[Any]]] = {
    "text_classification": {"text": TEXTS, "label": ["a", "b"] * 3},
    "token_classification": {"text": TEXTS, "spans": ['[{"start": 0, "end": 4, "label": "a"}]'] * 6},
    "relation_extraction": {"text": ["<e1>tavo</e1> osk ilpa <e2>karr</e2>"] * 6, "label": ["a", "b"] * 3},
    "question_answering": {"question": TEXTS, "context": TEXTS, "answers": [text[:4] for text in TEXTS]},
}


@pytest.mark.parametrize("name", ROWS)
def test_whoever_loads_the_model_elsewhere_pads_as_it_was_trained(name: str, here: Path) -> None:
    tokenizer().save_pretrained(here / "gpt2")
    left = PreTrainedTokenizerFast.from_pretrained(here / "gpt2", padding_side="left")
    left.save_pretrained(here / "gpt2")
    config_of("gpt2", len(left), pad_token_id=left.pad_token_id).save_pretrained(here / "gpt2")
    kind = task_type(name)
    assert kind is not None
    task = tasks.build(
        kind.model_validate({"name": name, "max_length": 32} | ({} if "label" in ROWS[name] else {"stride": 8}))
    )
    rows = to_dataset(Table(ROWS[name], [f"a:{row}" for row in range(6)]))
    task.fit(rows, ModelConfig(path=str(here / "gpt2"))).save(here)
    assert AutoTokenizer.from_pretrained(here).padding_side == "right"


def test_an_xlnet_from_nothing_reads_the_token_that_its_tokenizer_puts_first() -> None:
    model = ModelConfig.model_validate({"architecture": "xlnet", "config": {"d_model": 16, "n_layer": 1, "n_head": 2}})
    head = "AutoModelForSequenceClassification"
    assert build(model, head, {"vocab_size": 80, "pools_last": False}).config.summary_type == "first"
    assert build(model, head, {"vocab_size": 80, "pools_last": True}).config.summary_type == "last"
