"""Tidy the processed zone."""

from spark_app.cli import main

if __name__ == "__main__":
    main("maintain")
