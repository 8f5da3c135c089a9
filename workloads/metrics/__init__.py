"""Quality metrics of evaluation suites, computed from a user's own model outputs."""
