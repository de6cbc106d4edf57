"""Publish every user's top N."""

from spark_app.cli import main

if __name__ == "__main__":
    main("recommend")
