"""Held-out measurement: scores of a policy, of saved responses and of files, with confidence intervals and tables."""
