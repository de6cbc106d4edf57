"""On AWS: what runs there is built, deployed, run, looked at and removed by `python -m spark_app.aws`."""
