"""DataFrame in, DataFrame out: the contract of the raw files, cleaning rules, aggregates, generated data."""
