"""Finding texts by their meaning: embeddings, rerankers, and the passages that they find."""
