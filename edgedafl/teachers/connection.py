"""Requests to a served model.

What fails for a passing reason (no connection, 429, 5xx, time-out) is repeated with growing
pauses; what cannot be repaired by waiting is said at once.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgedafl.errors import EnvironmentMissingError, MeasurementError, UnsupportedModelError, UsageError

if TYPE_CHECKING:
    import httpx

__all__ = ["Connection", "TooLargeError"]

_log = logging.getLogger(__name__)

_PASSING = {408, 425, 429, 500, 502, 503, 504}
# Seconds: first pause, longest pause, how long a server may stay away, and how long it may take to
# answer for the first time: until then a wrong address is the likelier reason.
_FIRST_PAUSE, _LONGEST_PAUSE, _PATIENCE, _FIRST_PATIENCE = 0.2, 15.0, 300.0, 20.0
_SAME_FAULTS = 4  # a server that fails so often in the same words will not stop
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class TooLargeError(UnsupportedModelError):
    """The server refuses a batch of this size."""


class Connection:
    """Requests to one model's address, repeated while the reason for failing may pass.

    Args:
        url: `http(s)://host[:port]/v2/models/name[/versions/n]`.
        token: Bearer token; sent over https, or to this host.
        timeout: Seconds for one answer.
        patience: Seconds a server may stay away before the run ends (its state is saved); fewer until
            it has answered once.

    Raises:
        EnvironmentMissingError: If the `http` extra is not installed.
        UsageError: If the address is not of that form, or a token would travel in clear.
    """

    def __init__(self, url: str, *, token: str | None, timeout: float, patience: float = _PATIENCE) -> None:
        try:
            import httpx
        except ImportError as error:
            raise EnvironmentMissingError(
                "A teacher on a server needs the httpx package.", "Install it: pip install 'edgedafl[http]'."
            ) from error
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise UsageError(
                "The teacher's address holds credentials.", "Put the token into an environment variable: --token-env."
            )
        if "/v2/models/" not in parts.path or not parts.hostname:
            raise UsageError(
                f"{url!r} is not a model address.", "Give it as https://host/v2/models/NAME (Open Inference Protocol)."
            )
        if token and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise UsageError(
                f"The token would travel to {parts.hostname} unencrypted.", "Use an https address, or no token."
            )
        self.url = url.rstrip("/").removesuffix("/infer")
        self.root = f"{parts.scheme}://{parts.netloc}/v2"
        self._patience, self._answered = patience, False
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)

    def get(self, url: str) -> Any:
        """The JSON at an address; None where there is nothing."""
        answer = self._send("GET", url)
        if answer.status_code in (400, 404, 405, 501):
            return None
        return _json(self._checked(answer), url)

    def post(self, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """The answer of `infer`."""
        return self._checked(self._send("POST", f"{self.url}/infer", content=content, headers=headers))

    def _send(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        import httpx

        pause, began, seen = _FIRST_PAUSE, time.monotonic(), Counter[str]()
        patience = self._patience if self._answered else min(self._patience, _FIRST_PATIENCE)
        while True:
            try:
                answer = self._client.request(method, url, **arguments)
                if answer.status_code not in _PASSING:
                    self._answered = True
                    return answer
                reason = f"status {answer.status_code}{_words(answer)}"
                seen[reason] += 1
                if answer.status_code == 500 and seen[reason] >= _SAME_FAULTS:
                    raise UnsupportedModelError(
                        f"{urlsplit(url).netloc} answers {seen[reason]} times: {reason}.",
                        "The model fails on the server: look into its log.",
                    )
                pause = max(pause, _asked_pause(answer))
            except httpx.InvalidURL as error:
                raise UsageError(f"{url!r} is not a valid address: {error}.", "Correct --teacher-url.") from error
            except httpx.RequestError as error:
                if "CERTIFICATE" in str(error).upper():
                    raise MeasurementError(
                        f"The server's certificate is not valid: {error}.",
                        "Correct the address, or make the issuer known: SSL_CERT_FILE=ca.pem.",
                    ) from error
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            waited = time.monotonic() - began
            if waited + pause > patience:
                raise MeasurementError(
                    f"The server {urlsplit(url).netloc} did not answer for {waited:.0f} seconds ({reason}).",
                    "Start it, then go on with the same command and --resume."
                    if self._answered
                    else "Check the address, and that the server is up and has loaded the model.",
                )
            _log.info("No answer (%s); again in %.1f s.", reason, pause)
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        """The answer, or an error that says what to do; the token is never part of it."""
        status = answer.status_code
        if status < 300:
            return answer
        where = urlsplit(self.url).netloc
        if status in (401, 403):
            raise UsageError(
                f"{where} refused the credentials (status {status}).",
                "Name the environment variable that holds a valid token: --token-env NAME.",
            )
        if status < 400:
            raise UsageError(f"{where} redirects to another address (status {status}).", "Give the final address.")
        text = _words(answer)
        if status == 413 or (status == 400 and any(word in text.lower() for word in ("batch", "too large", "shape"))):
            raise TooLargeError(f"{where} refused the request (status {status}){text}")
        raise UnsupportedModelError(
            f"{where} refused the request (status {status}){text}", "Check the model's name, input and output."
        )


def _words(answer: httpx.Response) -> str:
    """What a server says of its failure, without markup."""
    try:
        found = answer.json()
        text = str(found.get("error", found)) if isinstance(found, dict) else str(found)
    except ValueError:
        text = re.sub(r"<[^>]*>", " ", answer.text)
    text = re.sub(r"(?i)bearer\s+\S+", "Bearer ***", " ".join(text.split()))[:200]
    return f": {text}" if text else ""


def _asked_pause(answer: httpx.Response) -> float:
    """Seconds the server asks to wait (Retry-After), within reason."""
    try:
        return min(float(answer.headers.get("retry-after", 0)), _LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _json(answer: httpx.Response, url: str) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise UnsupportedModelError(
            f"{url} does not answer JSON: it speaks another protocol.",
            "EdgeDAFL asks servers of the Open Inference Protocol (KServe v2).",
        ) from error
