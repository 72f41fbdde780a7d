"""What a run says of itself: lines on the terminal, the model card, the report."""
