"""llmft: train, evaluate, and export Hugging Face models; every key is a line of YAML.

From Python: `run = llmft.finetune("+recipe=bert_textcls", "trainer.epochs=1")`, and `llmft.load(run).predict([...])`.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Failure", "Stopped", "UserError", "eval", "export", "finetune", "load", "monitor", "pretrain"]


def __getattr__(name: str) -> Any:
    """The names in `__all__`, imported on first use, so that `import llmft` alone takes milliseconds."""
    if name not in __all__:
        raise AttributeError(f"module 'llmft' has no attribute {name!r}")
    from llmft import api

    return getattr(api, name)
