"""Tasks on the rows of a table."""
