"""Search for the settings of the models."""

from spark_app.cli import main

if __name__ == "__main__":
    main("tune")
