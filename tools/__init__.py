"""What the Makefile and the tests use: set-up, the package for clusters, an S3 server."""
