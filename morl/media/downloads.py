"""Files that rows name by URL: fetched once, and kept in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from morl.errors import BadMediaError
from morl.files import replacing

MOST_BYTES = 256 * 2**20
"""Of one file; what is longer is not kept."""
TIMEOUT_S = 30.0
"""For a connection, and for each next piece of a file."""
ATTEMPTS = 3
"""To fetch one file, where another may help: a lost connection, a busy or broken server."""

_BUSY = {408, 425, 429, 500, 502, 503, 504}


def fetch(url: str, folder: Path) -> Path:
    """The file behind an `http:` or `https:` URL; it is in the folder, or comes there.

    Two processes may ask for the same one: each writes a whole file or none.

    Raises: BadMediaError when it cannot be had, or is larger than `MOST_BYTES`; OSError when it cannot be kept.
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
                # The length that a server announces is not trusted, nor that of what is packed.
                for piece in response.iter_bytes():
                    if file.tell() + len(piece) > MOST_BYTES:
                        raise BadMediaError(f"{url} is longer than the {MOST_BYTES} bytes that are kept of one file")
                    file.write(piece)

    try:
        download()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise BadMediaError(f"{url} is not there: HTTP {status} {error.response.reason_phrase}".rstrip()) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadMediaError(f"{url} cannot be fetched: {str(error) or type(error).__name__}") from error
    return kept


def _name(url: str) -> str:
    """A name without surprises, that still says what the file was called."""
    path = PurePosixPath(urlsplit(url).path)
    suffix = path.suffix if path.suffix[1:].isalnum() and len(path.suffix) <= 6 else ""
    return hashlib.sha256(url.encode()).hexdigest()[:32] + suffix
