"""The commands of the command line, one module each: ``register(subparsers)`` and the function that runs it."""
