"""Compute features of users and movies, and a profile of the data."""

from spark_app.cli import main

if __name__ == "__main__":
    main("explore")
