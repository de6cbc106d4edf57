"""Split, matrix factorisation, biases, metrics and top N: no paths, no IO."""
