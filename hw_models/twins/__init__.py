"""The cost formulas once more over numpy or torch, with bounds for what a mapping decides: gradients, and millions of designs a second."""
