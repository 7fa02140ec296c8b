"""Data: sources of rows, templates that make prompts of them, and the mixture of objectives."""
