"""The HTML report of a run: curves, before and after, and samples to look at."""
