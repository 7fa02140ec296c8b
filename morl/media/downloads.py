"""Files named by URL: downloaded once and kept in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from morl.errors import BadMediaError
from morl.files import replacing

MAX_BYTES = 256 * 2**20
"""Of one file; a larger one is refused."""
TIMEOUT_S = 30.0
"""For connecting, and for each chunk of a file."""
ATTEMPTS = 3
"""Per file, for errors that may pass: a lost connection, a busy or failing server."""

_BUSY = {408, 425, 429, 500, 502, 503, 504}


def fetch(url: str, folder: Path) -> Path:
    """The file of an `http:` or `https:` URL, downloaded into the folder unless it is there.

    Safe for concurrent processes: each writes the file atomically.

    Raises: BadMediaError when it cannot be downloaded, or is larger than `MAX_BYTES`; OSError when it cannot be
        written.
    """
    kept = folder / _name(url)
    if kept.exists():
        return kept
    import httpx
    import tenacity

    def may_pass(error: BaseException) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.status_code in _BUSY
        return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
        retry=tenacity.retry_if_exception(may_pass),
        reraise=True,
    )
    def download() -> None:
        with httpx.stream("GET", url, timeout=TIMEOUT_S, follow_redirects=True) as response:
            response.raise_for_status()
            with replacing(kept) as file:
                # Counted here: the announced length may be wrong, or that of compressed data.
                for chunk in response.iter_bytes():
                    if file.tell() + len(chunk) > MAX_BYTES:
                        raise BadMediaError(f"{url} is larger than {MAX_BYTES} bytes, the limit for one file")
                    file.write(chunk)

    try:
        download()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise BadMediaError(f"{url}: HTTP {status} {error.response.reason_phrase}".rstrip()) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadMediaError(f"{url} cannot be downloaded: {str(error) or type(error).__name__}") from error
    return kept


def _name(url: str) -> str:
    """A safe file name that keeps the suffix."""
    path = PurePosixPath(urlsplit(url).path)
    suffix = path.suffix if path.suffix[1:].isalnum() and len(path.suffix) <= 6 else ""
    return hashlib.sha256(url.encode()).hexdigest()[:32] + suffix
