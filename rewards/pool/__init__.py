"""Processes that call rewards and can be killed."""
