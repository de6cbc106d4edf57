"""The layout of the raw and the processed zone, and the only code that reads and writes them."""
