"""Tasks that answer a text with a text: an encoder reads, a decoder writes."""
