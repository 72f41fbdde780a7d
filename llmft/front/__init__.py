"""Commands that need no config: help, recipes, completion, runs, explain. Imports no torch."""
