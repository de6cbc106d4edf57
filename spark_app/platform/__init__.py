"""What all other packages build on: settings, Spark session, storage, catalogue, lock, log and errors."""
