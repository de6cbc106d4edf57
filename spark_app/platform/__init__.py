"""What everything else stands on: settings, Spark session, storage, catalogue, manifest, lock and errors."""
