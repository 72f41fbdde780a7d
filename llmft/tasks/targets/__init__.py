"""What tasks share that answer with labels or a number: from cells to numbers and back, losses, thresholds."""
