"""Tasks on a text, or a pair of texts, that an encoder reads."""
