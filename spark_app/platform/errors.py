"""The expected failures: one tree of classes, each with its own exit code of the command line."""

from __future__ import annotations


class JobError(Exception):
    """An expected failure. Its message is one line: what is wrong, where, and what to do about it."""

    exit_code = 1


class UsageError(JobError):
    """An option, a setting or the environment is wrong."""

    exit_code = 2


class InputError(JobError):
    """An input is missing, unreadable, or breaks its contract."""

    exit_code = 3


class TooManyRejectsError(JobError):
    """The cleaning rules rejected a larger share of the rows than the settings allow."""

    exit_code = 4


class GateError(JobError):
    """The model did not beat its baseline and is not published."""

    exit_code = 5


class LockedError(JobError):
    """Another process holds the lock of a zone or of the metastore."""

    exit_code = 6


class StorageError(JobError):
    """Storage cannot be reached, or refuses a request."""

    exit_code = 7
