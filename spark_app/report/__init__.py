"""What people look at: the report page, and results in a terminal."""
