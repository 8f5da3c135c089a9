"""What a run shows: figures for notebooks and a self-contained HTML report."""
