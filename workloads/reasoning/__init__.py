"""Language models that reason in loops: the loops on any back end, their traces, and what they cost in closed form."""
