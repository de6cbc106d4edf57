"""Tools of the Makefile and the tests: set-up, the package for clusters, an S3 server, the audit."""
