"""Items for a user: what to list next, or how the user would rate them."""
