"""What people see of a run: console lines, the model card, and the report."""
