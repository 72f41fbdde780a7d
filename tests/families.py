"""A tiny model of every architecture that transformers has, as far as one can be made of a few sizes."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

# By all the names that architectures have for them.
SIZES: dict[str, Any] = dict.fromkeys(
    ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "entity_emb_size"), 16
)
SIZES |= dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "hidden_dim", "d_inner"), 24)
SIZES |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 16)
SIZES |= dict.fromkeys(("shared_expert_intermediate_size", "expert_ffn_size"), 16)
SIZES |= dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2)
SIZES |= dict.fromkeys(("encoder_layers", "decoder_layers", "first_k_dense_replace"), 1)
SIZES |= dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 2)
SIZES |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
SIZES |= dict.fromkeys(("head_dim", "d_head", "d_kv", "attention_head_size", "q_lora_rank", "kv_lora_rank"), 8)
SIZES |= dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "entity_vocab_size"), 8)
SIZES |= dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "block_size", "rotary_dim"), 4)
SIZES |= dict.fromkeys(("num_experts_per_tok", "n_shared_experts", "n_group", "topk_group", "num_random_blocks"), 1)
SIZES |= dict.fromkeys(("max_position_embeddings", "n_positions"), 64)
SIZES |= {"attention_window": 4, "window_size": 4, "axial_pos_shape": (8, 8), "axial_pos_embds_dim": (8, 8)}
LARGEST = 1_000_000  # parameters; what is larger has sizes of its own, for pictures or sound


def config_of(kind: str, vocab_size: int, **more: Any) -> PreTrainedConfig:
    """A configuration of the architecture with a few tiny sizes.

    Raises:
        Exception: whatever the architecture makes of sizes that do not fit it.
    """
    made = CONFIG_MAPPING[kind]
    known = {*made().to_dict(), *made.attribute_map, "num_labels"}
    return made(**{key: value for key, value in (SIZES | {"vocab_size": vocab_size} | more).items() if key in known})


def families(head: str, vocab_size: int, kinds: set[str], **more: Any) -> Iterator[tuple[str, PreTrainedModel]]:
    """Each architecture that the Auto class `head` knows and that comes out tiny, with its random model.

    Of `kinds` alone, if there are any. Its matrices are four times as large as it makes them, so that what enters an answer shows.
    """
    warnings.filterwarnings("ignore")
    auto = getattr(transformers, head)
    for kind in sorted({config.model_type for config in auto._model_mapping}):
        if kinds and kind not in kinds:
            continue
        try:
            config = config_of(kind, vocab_size, **more)
            for key, value in more.items():
                setattr(config, key, value)
            with torch.device("meta"):
                if sum(weight.numel() for weight in auto.from_config(config).parameters()) > LARGEST:
                    continue
            torch.manual_seed(0)
            model = auto.from_config(config).float().eval()
        except Exception:  # sizes that do not go together, or another package
            continue
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(4 if weight.dim() > 1 else 1)
        yield kind, model
