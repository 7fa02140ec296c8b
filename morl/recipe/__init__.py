"""Reading recipes: YAML with line numbers, the schema section by section, overrides, schedules and error messages."""
