"""What is answered at once, without a configuration: help, recipes, completion. Imports no torch and no pydantic."""
