"""Tasks on conversations, which a decoder reads by its chat template."""
