"""Integrated gradients of long texts, and attention, of tiny models whose weights are random."""

from typing import Any

import numpy
import pytest
import torch
import transformers

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.data.source import Rows, Table
from llmft.reporting.answers import attention
from llmft.tasks.explaining import Introspects, explained, log_odds
from llmft.tasks.text.words import HIDDEN, MOST
from llmft.training.evaluation import predict
from llmft.training.features import encode
from llmft.training.introspection import Introspection, asking

SIZES = {"bert": "hidden_size intermediate_size", "gpt2": "n_embd n_inner"}
FEW = {"bert": {"num_hidden_layers": 2, "num_attention_heads": 2}, "gpt2": {"n_layer": 2, "n_head": 2}}


def made(architecture: str) -> tuple[Any, Any, Introspection]:
    """A task, a model with large random weights, and what asks it."""
    words = ["smoke=true", "model=random", f"model.architecture={architecture}", "task.max_length=400"]
    kind = "wordpiece" if architecture == "bert" else "bpe"
    config = compose("finetune", ["+recipe=bert_textcls", *words, f"model.tokenizer.kind={kind}"])
    task = tasks.build(config.task)
    task = task.fit(load(config.dataset, task)["train"], config.model).for_inference("")
    torch.manual_seed(0)
    sizes = dict.fromkeys(SIZES[architecture].split(), 16) | FEW[architecture]
    known = {name: value for name, value in task.model_kwargs().items() if name != "pools_last"}
    known |= {"max_position_embeddings": 512, "initializer_range": 0.3}
    model = getattr(transformers, task.head).from_config(
        transformers.AutoConfig.for_model(architecture, **sizes, **known)
    )

    def answers(rows: Rows) -> list[dict[str, Any]]:
        return predict(task, model, encode(task, rows), 8).answers

    ask = asking(task, model, answers)
    assert isinstance(ask, Introspection)
    return task, model, ask


TEXT = " ".join(["tavo lumo renn mirk ilpa"] * 24)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_a_long_text_is_explained_by_integrated_gradients(architecture: str) -> None:
    """All weights together are what is lost where every word is masked: the axiom of completeness."""
    task, model, ask = made(architecture)
    row = Table({"text": [TEXT]}, ["0"])
    (answer,) = answers = ask(row)
    (found,) = explained(task, row, answers, ask)
    assert found["method"] == "integrated gradients"
    assert found["why"] == f"120 words: hiding each alone would take 121 passes, and {MOST} are allowed"
    assert [part["text"] for part in found["parts"]] == TEXT.split()
    label = found["of"]
    (feature,) = encode(task, row).__getitems__([0])
    places = task._tokens({"text": TEXT})
    masked = [
        token if span is None else places.mask for token, span in zip(feature["input_ids"], places.spans, strict=True)
    ]
    batch = task.objective.collate([feature | {"input_ids": masked}])
    with torch.no_grad():
        (baseline,) = task.decode([model.eval()(**batch).logits[0].numpy()], [0])
    lost = log_odds(answer["scores"][label]) - log_odds(baseline["scores"][label])
    assert abs(lost) > 0.05
    assert sum(part["weight"] for part in found["parts"]) == pytest.approx(lost, rel=0.15, abs=0.02)
    assert model.config._attn_implementation == "sdpa"
    assert not model.get_input_embeddings()._forward_hooks
    assert all(weight.grad is None for weight in model.parameters())


def test_gradients_of_a_linear_model_are_its_weights() -> None:
    """The scores of such a model are sums over its tokens, so that eight steps give them exactly."""
    task, _, _ = made("bert")

    class Sum(torch.nn.Module):
        config: Any = None

        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(len(task.state.tokenizer), 2)

        def get_input_embeddings(self) -> Any:
            return self.table

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return transformers.utils.ModelOutput(logits=self.table(input_ids).sum(dim=1), loss=None)

    model = Sum()
    ask = Introspection(task, model, lambda rows: predict(task, model, encode(task, rows), 8).answers)
    row = Table({"text": ["lumo mirk lumo"]}, ["0"])
    label = task.state.target.labels[1]
    tokens = task._tokens({"text": "lumo mirk lumo"})
    places = [number for number, span in enumerate(tokens.spans) if span]
    found = ask.integrate(row, places, tokens.mask, lambda answer: log_odds(answer["scores"][label]))
    assert found
    ids = encode(task, row)[0]["input_ids"]
    table = model.table.weight.detach().numpy()
    margin = [table[ids[n]] - table[tokens.mask] for n in places]
    assert found == pytest.approx([float(each[1] - each[0]) for each in margin], rel=1e-3, abs=1e-4)
    assert ask.attention(row) == [None]


def test_a_short_text_and_a_program_are_explained_by_hidden_words() -> None:
    task, _, ask = made("bert")
    for text, asked in (("tavo lumo", ask), (TEXT, ask.answers)):
        row = Table({"text": [text]}, ["0"])
        (found,) = explained(task, row, ask(row), asked)
        assert "method" not in found
        assert ("attention" in found) == isinstance(asked, Introspects)


@pytest.mark.parametrize(("architecture", "reads"), [("bert", 0), ("gpt2", -1)])
def test_attention_is_that_of_the_token_that_the_answer_is_read_from(architecture: str, reads: int) -> None:
    task, model, ask = made(architecture)
    row = Table({"text": ["tavo lumo renn"], HIDDEN: [[]]}, ["0"])
    (found,) = explained(task, row, ask(row), ask)
    ids = torch.tensor([encode(task, row)[0]["input_ids"]])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model.eval()(input_ids=ids, output_attentions=True).attentions
    expected = numpy.array([layer[0].mean(dim=0)[reads].numpy() for layer in layers])
    shown = found["attention"]
    assert (shown["layers"], shown["heads"], shown["of"]) == (2, 2, ids.shape[1])
    shares = numpy.array([token["shares"] for token in shown["tokens"]]).T
    numpy.testing.assert_allclose(shares, expected, atol=1e-4)
    assert [token["text"] for token in shown["tokens"]] == [task.state.tokenizer.decode([n]).strip() for n in ids[0]]


def test_attention_to_the_parts_of_an_image() -> None:
    words = ["smoke=true", "model=random", "model.architecture=vit", "task.size=32"]
    words.append("model.config={patch_size: 16, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2}")
    config = compose("finetune", ["+recipe=cifar_resnet", *words])
    task = tasks.build(config.task)
    rows = load(config.dataset, task)["train"]
    task = task.fit(rows, config.model)
    kwargs = {k: v for k, v in task.model_kwargs().items() if k in ("num_labels", "id2label")}
    sizes = {"image_size": 32, "patch_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    model: Any = transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, num_attention_heads=2, num_channels=task.state.channels, **kwargs)
    )
    task = task.for_inference("")

    def answers(rows: Rows) -> list[dict[str, Any]]:
        return predict(task, model, encode(task, rows), 8).answers

    row = rows.select([0]).remove_columns("label")
    (found,) = explained(task, row, answers(row), asking(task, model, answers))
    parts = found["attention"]["parts"]
    assert len(parts) == 4
    assert 0 < sum(part["weight"] for part in parts) < 1, "the class token has the rest"
    assert parts[0]["box"][:2] == [0, 0]


def test_the_drawing_has_the_largest_share_of_each_layer() -> None:
    tokens = [{"text": "[CLS]", "shares": [0.5, 0.2]}, {"text": "a", "shares": [0.25, 0.8]}]
    found = attention({"attention": {"layers": 2, "heads": 3, "of": 2, "tokens": tokens}})
    assert found
    assert found["shares"] == [[(0.5, 1.0), (0.25, 0.5)], [(0.2, 0.25), (0.8, 1.0)]]
    assert attention({"parts": []}) is None
