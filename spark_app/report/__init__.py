"""What people look at: results in a terminal."""
