"""What operations cost on accelerators, one execution model each."""
