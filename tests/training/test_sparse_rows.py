"""Tables of ids: which rows an optimizer moves, and which it leaves alone."""

from typing import Any

import pytest
import torch
from torch import nn

from llmft.models import id_embedding
from llmft.models.id_embedding import IdEmbedding
from llmft.schema.optimizer import OptimizerConfig
from llmft.training.optimization import SparseRowsAdam, build_optimizer

ADAMS = ("adam", "adamw")
PENALTIES: list[dict[str, Any]] = [
    {"weight_decay": 0.5},
    {"l2": 0.5, "weight_decay": 0},
    {"l1": 0.5, "weight_decay": 0},
]


class Tables(nn.Module):
    """A table and a matrix; the loss of a batch is a sum over its rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = IdEmbedding(rows, 3)
        self.layer = nn.Linear(3, 1)

    def loss(self, ids: list[int]) -> torch.Tensor:
        loss: torch.Tensor = self.layer(self.table(torch.tensor(ids))).square().sum()
        return loss


def steps(model: Tables, config: OptimizerConfig, batches: list[list[int]]) -> torch.optim.Optimizer:
    optimizer = build_optimizer(config, model)
    for ids in batches:
        optimizer.zero_grad()
        model.loss(ids).backward()
        optimizer.step()
    return optimizer


@pytest.fixture(params=[10, 50_000], ids=["dense", "sparse"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    if request.param != 10:  # as large tables are, and as small as tests like them
        monkeypatch.setattr(id_embedding, "SPARSE_ROWS", 5)
    return 10


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("name", [*ADAMS, "sgd", "adagrad", "lion"])
def test_rows_that_no_batch_holds_stay_as_they_are(name: str, penalty: dict[str, Any], size: int) -> None:
    """Adam divides by the size of a gradient: of a penalty alone, each step would be as large as the learning rate."""
    model = Tables(size)
    before = model.table.weight.detach().clone()
    config = OptimizerConfig.model_validate({"name": name, "lr": 0.01, "momentum": 0.0, **penalty})
    steps(model, config, [[1, 2, 2], [2, 3]] * 20)
    after = model.table.weight.detach()
    assert torch.equal(after[4:], before[4:])
    assert not after[0].any(), "padding is zero"
    assert not torch.isclose(after[1:4], before[1:4]).any()
    assert model.table.sparse == (name in ADAMS and id_embedding.SPARSE_ROWS == 5)


@pytest.mark.parametrize("name", ADAMS)
@pytest.mark.parametrize("penalty", [{"weight_decay": 0}, *PENALTIES], ids=str)
def test_sparse_rows_are_dense_ones_where_every_batch_has_all(
    name: str, penalty: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OptimizerConfig.model_validate({"name": name, "lr": 0.01, **penalty})
    batches = [[1, 2, 3, 3], [3, 2, 1, 1]] * 5
    dense = Tables(3)
    steps(dense, config, batches)
    monkeypatch.setattr(id_embedding, "SPARSE_ROWS", 1)
    sparse = Tables(3)
    assert isinstance(steps(sparse, config, batches), SparseRowsAdam)
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_sparse_rows_are_those_of_torchs_sparse_adam() -> None:
    ours, theirs = Tables(20), Tables(20)
    ours.table.sparse = theirs.table.sparse = True
    one = SparseRowsAdam(ours.table.parameters(), lr=0.05)
    other = torch.optim.SparseAdam(theirs.table.parameters(), lr=0.05)
    for ids in ([1, 2, 2], [2, 3], [7], [1, 1, 3]):
        for model, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            model.loss(ids).backward()
            optimizer.step()
    assert torch.allclose(ours.table.weight, theirs.table.weight, atol=1e-7)


def test_a_decay_of_the_batch_by_hand() -> None:
    """Decoupled: a row of the batch is first multiplied by 1 - lr * decay, then moves by Adam's first step, lr."""
    model = Tables(3)
    before = model.table.weight[1].detach().clone()
    signs = (model.layer(model.table(torch.tensor([1]))) * model.layer.weight[0]).sign().detach()[0]
    steps(model, OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.5), [[1]])
    assert torch.allclose(model.table.weight[1], before * (1 - 0.01 * 0.5) - 0.01 * signs, atol=1e-6)
