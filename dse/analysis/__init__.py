"""What a front says: importance, explanation, neighbours, comparison, alignment."""
