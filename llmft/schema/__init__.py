"""The vocabulary: what a configuration can say. Imports nothing of llmft but itself, and no torch."""
