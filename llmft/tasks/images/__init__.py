"""The tasks whose input is an image."""
