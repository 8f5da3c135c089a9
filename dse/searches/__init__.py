"""How a problem is searched: sweep, shards, large spaces, measured quality, refinement."""
