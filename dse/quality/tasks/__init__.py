"""Tasks on which a model held locally is measured: data, what is asked of it, and the figure with its standard error."""
