"""From a trained model to files of another runtime, and what they are worth beside the original."""
