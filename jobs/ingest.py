"""Put movies.csv and ratings.csv into the raw zone."""

from spark_app.cli import main

if __name__ == "__main__":
    main("ingest")
