"""The deployment on AWS: `python -m spark_app.aws` builds, deploys, runs, shows and removes it."""
