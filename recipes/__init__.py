"""The recipes that come with morl, their data, and the schema of recipes."""
