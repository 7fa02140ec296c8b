"""Before a run: what is wrong with a recipe and its data, what is not on this machine, and what it will need."""
