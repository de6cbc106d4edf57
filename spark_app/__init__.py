"""Movie-reco: a batch movie recommender on Apache Spark."""

__version__ = "0.1.0"
