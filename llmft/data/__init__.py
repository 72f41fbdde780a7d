"""From a source to checked and split rows."""
