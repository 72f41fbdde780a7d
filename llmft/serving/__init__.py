"""`llmft serve`: answers over HTTP, by the path of `llmft predict`."""
