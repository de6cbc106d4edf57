"""The stages: the only place that reads and writes tables. Each is a recipe of named steps."""
