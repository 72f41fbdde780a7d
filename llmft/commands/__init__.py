"""One file a command; each reads from top to bottom as the story of that command."""
