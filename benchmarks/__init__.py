"""What is measured against what; the last results are under `results`."""
