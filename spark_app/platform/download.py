"""Resumable downloads that log their progress, checked against the publisher's checksum."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from spark_app.platform.errors import InputError, StorageError
from spark_app.platform.log import logger
from spark_app.platform.progress import POLL_SECONDS

CHUNK = 1 << 20
TIMEOUT = (10, 60)  # seconds to connect, and seconds to wait for the next byte
MAX_CHECKSUM_BYTES = 4096


class CutShortError(requests.ConnectionError):
    """The connection closed before the whole file arrived."""


def download(url: str, path: str) -> None:
    """Fetch a URL to a local path, and resume where an earlier attempt stopped.

    Where the publisher has `URL.md5`, the file must match it. Raises StorageError where the server cannot be reached
    or refuses; the partial file stays for the next attempt. Raises InputError where the checksum differs; the file is
    removed.
    """
    target, partial = Path(path), Path(f"{path}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # an earlier run fetched all of it and then failed: check it again
        target.replace(partial)
    with _session() as session:
        try:
            checksum = _published_md5(session, f"{url}.md5")
            _fetch(session, url, partial)
        except requests.RequestException as error:
            raise StorageError(
                f"cannot download {url}: {_reason(error)}; check the network, or give a folder or zip"
            ) from error
    if checksum is None:
        logger.info("the publisher has no checksum for %s: only the checksums inside the zip are checked", target.name)
    elif (actual := _md5(partial)) != checksum:
        partial.unlink()
        raise InputError(f"{url} does not match its publisher's checksum (MD5 {actual}, not {checksum}): try again")
    partial.replace(target)


def _session() -> requests.Session:
    session = requests.Session()
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504), raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _published_md5(session: requests.Session, url: str) -> str | None:
    answer = session.get(url, timeout=TIMEOUT)
    if answer.status_code == requests.codes.not_found:
        return None
    answer.raise_for_status()
    checksum = re.search(r"\b[0-9a-fA-F]{32}\b", answer.text[:MAX_CHECKSUM_BYTES])
    return checksum.group().lower() if checksum else None


def _fetch(session: requests.Session, url: str, partial: Path) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"} if done else {"Accept-Encoding": "identity"}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if done and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the partial file is complete
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        if resumed:
            logger.info("resuming %s after %s bytes", url, f"{done:,}")
        total = int(answer.headers.get("Content-Length", 0)) + (done if resumed else 0)
        size, logged_at = done if resumed else 0, time.monotonic()
        # The check below reports a body that ends early. urllib3 would raise, and lose the bytes of its last chunk.
        answer.raw.enforce_content_length = False
        with partial.open("ab" if resumed else "wb") as stream:
            for chunk in answer.iter_content(CHUNK):
                size += stream.write(chunk)
                if time.monotonic() - logged_at >= POLL_SECONDS:
                    logged_at = time.monotonic()
                    of_all = f" of {total:,}" if total else ""
                    logger.info("downloading %s: %s%s bytes so far", partial.stem, f"{size:,}", of_all)
        if total and partial.stat().st_size < total:
            raise CutShortError(f"{url} stopped after {partial.stat().st_size:,} of {total:,} bytes")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        # The publisher gives MD5. It guards against damage, not against an attacker.
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, CutShortError)):
        return "the connection was lost"
    return f"no connection ({type(error).__name__})"
