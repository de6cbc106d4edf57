"""Run all stages in one Spark session."""

from spark_app.cli import main

if __name__ == "__main__":
    main("pipeline")
