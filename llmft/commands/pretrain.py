"""`llmft pretrain`: a language model from raw text. Its task says how texts become batches; the rest is finetune's."""

from llmft.commands.finetune import run

__all__ = ["run"]
