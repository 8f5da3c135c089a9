"""The compiled module: what it holds is typed where it is called, in the Python face of each kernel."""

from typing import Any

def __getattr__(name: str) -> Any: ...
