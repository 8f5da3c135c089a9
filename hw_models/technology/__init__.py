"""What technology says: tables by node, floor plan, leakage, profiles, and the array namespace of the formulas."""
