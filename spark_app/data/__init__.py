"""Functions from DataFrame to DataFrame: the contract of the raw files, cleaning rules, aggregates, generated data."""
