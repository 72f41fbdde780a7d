"""FT-Transformer against its formulas, written out."""

import pytest
import torch

from llmft.models.build import build
from llmft.models.table_models import Attention, FeedForward, FTTransformerConfig, FTTransformerForClassification
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}


def config(**more: object) -> FTTransformerConfig:
    return FTTransformerConfig(num_numbers=2, category_sizes=[3], **SIZES, **more)


def layer(linear: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    return inputs @ linear.weight.T + linear.bias


def normed(norm: torch.nn.LayerNorm, inputs: torch.Tensor) -> torch.Tensor:
    centred = inputs - inputs.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def attention(part: Attention, tokens: torch.Tensor) -> torch.Tensor:
    """softmax(QK'/sqrt(d))V of each head on its 4 of 8 columns, one row at a time."""
    rows = []
    for row in tokens:
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            query, key, value = (layer(linear, row)[:, head] for linear in (part.query, part.key, part.value))
            weights = (query @ key.T / 4**0.5).exp()
            heads.append(weights / weights.sum(-1, keepdim=True) @ value)
        rows.append(torch.cat(heads, dim=-1))
    return layer(part.output, torch.stack(rows))


def reglu(part: FeedForward, tokens: torch.Tensor) -> torch.Tensor:
    """(xV + c) * max(0, xW + b), each 10 = 8 * 4/3 wide, and a linear layer."""
    inner = layer(part.inner, tokens)
    return layer(part.output, inner[..., :10] * inner[..., 10:].clamp(min=0))


BATCH = (
    torch.tensor([[0.5, -1.0], [2.0, 0.0], [0.0, 0.3]]),
    torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
    torch.tensor([[1], [3], [0]]),
)


def test_the_forward_pass_is_what_the_paper_says() -> None:
    torch.manual_seed(0)
    model = FTTransformerForClassification(config(num_labels=3)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, so that each of them counts
            parameter.normal_(std=0.5)
    numbers, missing, categories = BATCH[0].double(), BATCH[1].double(), BATCH[2]
    rows = []
    for row in range(3):
        tokens = [model.cls]
        for column in range(2):
            vector = numbers[row, column] * model.number_vectors[column]
            tokens.append(vector + missing[row, column] * model.missing_vectors[column] + model.column_biases[column])
        tokens.append(model.embeddings[0].weight[categories[row, 0]] + model.column_biases[2])
        rows.append(torch.stack(tokens))
    tokens = torch.stack(rows)
    first, second = model.blocks
    tokens = tokens + attention(first.attention, tokens)  # no norm before the first attention
    tokens = tokens + reglu(first.feed_forward, normed(first.feed_forward_norm, tokens))
    tokens = tokens + attention(second.attention, normed(second.attention_norm, tokens))
    tokens = tokens + reglu(second.feed_forward, normed(second.feed_forward_norm, tokens))
    expected = layer(model.classifier, normed(model.head_norm, tokens[:, 0]).clamp(min=0))
    assert torch.allclose(model(numbers, missing, categories).logits, expected, atol=1e-12)


def test_a_token_has_a_vector_for_each_bin() -> None:
    edges = [[-1.0, 0.0, 1.0], [0.0, 2.0]]
    model = FTTransformerForClassification(config(num_labels=3, bin_edges=edges)).double()
    with torch.no_grad():
        model.bin_vectors.normal_()
    plain = FTTransformerForClassification(config(num_labels=3)).double()
    plain.load_state_dict(model.state_dict(), strict=False)
    numbers, missing, categories = BATCH[0].double(), BATCH[1].double(), BATCH[2]
    # The numbers are 0.5 and -1; 2 and none; none and 0.3. A bin that lies below the number altogether counts fully.
    first, second, third = model.bin_vectors
    nothing = torch.zeros(8)
    added = [[first + 0.5 * second, nothing], [first + second, nothing], [nothing, 0.15 * third]]
    expected = plain.tokens(numbers, missing, categories)
    expected[:, 1:3] += torch.stack([torch.stack(row) for row in added])
    assert torch.allclose(model.tokens(numbers, missing, categories), expected, atol=1e-7)


def test_new_weights_are_those_of_the_paper() -> None:
    model = FTTransformerForClassification(FTTransformerConfig(num_numbers=3, category_sizes=[50], num_labels=2))
    assert len(model.blocks) == 3
    assert model.blocks[0].feed_forward.output.in_features == 256  # 192 * 4/3
    for parameter in (model.number_vectors, model.column_biases, model.cls, model.embeddings[0].weight):
        assert 0.9 < parameter.abs().max() * 192**0.5 <= 1
    assert model.head_norm.weight.eq(1).all()
    assert model.classifier.bias.eq(0).all()


def test_dropout_is_for_training_alone() -> None:
    model = FTTransformerForClassification(config(num_labels=2, residual_dropout=0.5))
    torch.manual_seed(0)
    model.train()
    assert not torch.equal(model(*BATCH).logits, model(*BATCH).logits)
    model.eval()
    assert torch.equal(model(*BATCH).logits, model(*BATCH).logits)


def test_heads_must_share_a_token_out() -> None:
    sizes = {"hidden_size": 10, "num_attention_heads": 4}
    wrong = ModelConfig(architecture="ft_transformer", init="random", config=sizes)
    with pytest.raises(UserError, match="hidden_size=10 is not a multiple of num_attention_heads=4"):
        build(wrong, "AutoModelForSequenceClassification", {"num_labels": 2})
