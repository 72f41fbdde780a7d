"""llmft: train, adapt and ship models; every choice on the way is a line of YAML."""

__version__ = "0.1.0"
