"""Where weights, gradients and the optimizer's state lie: `hardware.strategy`, in accelerate's words."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from transformers import PreTrainedModel

from llmft.models.sharded import WHOLE


def use_fsdp(accelerator: Accelerator, plugin: dict[str, Any], model: PreTrainedModel) -> None:
    """Let `accelerator` shard `model` by FSDP, layer by layer.

    On processors alone accelerate drops the plugin and trains as ddp, in silence, though torch shards there too.
    Without a policy of its own the weights stay in float32, as scores need them; training computes under autocast.
    """
    state = accelerator.state
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)
    state.fsdp_plugin.mixed_precision_policy = None
    state.fsdp_plugin.transformer_cls_names_to_wrap = _layers(model)


def _layers(model: PreTrainedModel) -> list[str]:
    """The classes of what the model has most of in a row: its layers. `_no_split_modules` names embeddings too, which
    accelerate shards by themselves, and for DistilBERT none."""
    rows = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
    return sorted({type(layer).__name__ for layer in max(rows, key=len, default=())})


def save_optimizer(model: torch.nn.Module, optimizer: Any, scheduler: Any, folder: Path, writes: bool) -> None:
    """Write the whole state of the optimizer of a sharded model, gathered by the first process.

    transformers would write the weights once more beside it.
    """
    state = get_optimizer_state_dict(model, optimizer, options=WHOLE)
    if writes:
        torch.save(state, folder / "optimizer.bin")
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")
