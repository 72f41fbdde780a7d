"""Tasks that learn from raw text."""
