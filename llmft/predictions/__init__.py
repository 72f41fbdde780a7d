"""`llmft predict`: answers to rows that come from a file, a pipe or the command line, without a run folder."""
