"""Register the tables of both zones by name."""

from spark_app.cli import main

if __name__ == "__main__":
    main("catalog")
