"""Where weights, gradients and the optimizer's state lie: `hardware.strategy`, in accelerate's words."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import PreTrainedModel


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
