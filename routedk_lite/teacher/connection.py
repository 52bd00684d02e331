"""How an endpoint is reached: its address, the key, proxies and certificates. What is secret is never shown."""

from __future__ import annotations

import base64
import ipaddress
import json
import logging
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from urllib.request import proxy_bypass_environment

from .teachers import TeacherError

if TYPE_CHECKING:
    import openai

SHORT, LONG = 4, 8
"""Characters below which a secret is left in the logs of libraries, and in records: it may be a word."""

# --- what is secret -----------------------------------------------------------------------------------------------


class Secrets:
    """Texts that no message, log or record may hold, in any of the forms in which a server may repeat them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self.add(secrets)

    def __repr__(self) -> str:
        return "Secrets(…)"

    def add(self, secrets: Iterable[str]) -> None:
        """Keep these too."""
        for text in filter(None, secrets):
            self._forms |= {text, quote(text, safe="", errors="surrogatepass"), json.dumps(text)[1:-1], escape(text)}

    def hide(self, text: str, *, shortest: int = 1) -> str:
        """The text with an ellipsis in place of every secret.

        Args:
            text: what is to be shown or kept.
            shortest: shorter secrets than this stay: they may be words. For answers, which must not be damaged.
        """
        forms = sorted((form for form in self._forms if len(form) >= shortest), key=len, reverse=True)
        return re.sub("|".join(map(re.escape, forms)), "…", text, flags=re.IGNORECASE) if forms else text

    def hide_all(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same for every text of a record, without short secrets."""
        return {
            name: self.hide(value, shortest=LONG)
            if isinstance(value, str)
            else self.hide_all(value)
            if isinstance(value, Mapping)
            else value
            for name, value in values.items()
        }


class _HidingFilter(logging.Filter):
    """Takes secrets out of the log records of the libraries that send requests: they log whole addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets = Secrets()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        hidden = self.secrets.hide(said, shortest=SHORT)
        if hidden != said:
            record.msg, record.args = hidden, ()
        if record.exc_info:
            shown = logging.Formatter().formatException(record.exc_info)
            record.exc_text, record.exc_info = self.secrets.hide(shown, shortest=SHORT), None
        return True


_HIDING = _HidingFilter()
_LOGGERS = ("httpx", "httpx2", "openai", "openai._base_client", "openai._response", "openai._legacy_response")


def key_problem(key: str) -> str:
    """What is wrong with a key, in words that do not show it; empty if it can be sent.

    >>> key_problem("sk-abc\\nxyz")
    'holds a line break'
    """
    if re.search(r"[\r\n\v\f\x85\u2028\u2029]", key):
        return "holds a line break"
    if key[:7].lower() in ("bearer ", "bearer:"):
        return "begins with the word Bearer, which is no part of a key"
    if re.search(r"\s", key):
        return "holds a blank"
    if re.search("^[\"'`‘’‚‛“”„«»‹›]|[\"'`‘’‚‛“”„«»‹›]$", key):
        return "stands in quotation marks, which are no part of a key"
    if not key.isascii():
        return "holds a character that is not plain ASCII, such as a typographic quote or dash"
    if not key.isprintable():
        return "holds a control character"
    return ""


# --- addresses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """An endpoint's address, in parts."""

    endpoint: str
    """Without user name, password and query: this is what is shown and stored."""
    host: str
    login: tuple[str, str] | None = field(default=None, repr=False)
    """User name and password."""
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        try:
            host = ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return self.host.rstrip(".") == "localhost" or self.host.rstrip(".").endswith(".localhost")
        host = getattr(host, "ipv4_mapped", None) or host
        return host.is_loopback or host.is_unspecified

    @property
    def secrets(self) -> list[str]:
        """What must not be shown of it: the password, or a key in its place, and what may be one in the query."""
        values = [value for value in self.query.values() if len(value) >= SHORT]
        if not self.login:
            return values
        user, password = self.login
        return [password or user, base64.b64encode(f"{user}:{password}".encode()).decode(), *values]


def read_address(base_url: str) -> Address:
    """Take an endpoint's address apart.

    Raises:
        ValueError: it is none; the message does not show a password or a query.
    """
    problem = ""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
        del port  # only read because a bad one raises
    except (ValueError, AttributeError, TypeError):
        problem = "an http(s) address such as https://api.openai.com/v1"
    else:
        if (
            parts.scheme not in ("http", "https")
            or not host
            or re.search(r"[\s\x00-\x1f\x7f\\\ud800-\udfff]", base_url)
        ):
            problem = "an http(s) address such as https://api.openai.com/v1"
        elif parts.path.rstrip("/").endswith("/completions"):
            problem = "the address up to and including its version, without /chat/completions"
    if problem:
        shown = re.sub(r"^(https?:/*)?.*@", r"\1…@", str(base_url), flags=re.DOTALL)
        shown = re.sub(r"[?#].*", "?…", shown, flags=re.DOTALL)
        if re.fullmatch(r"(?!.*\.[a-z]{2,9}$)[\w.-]{12,}", shown):
            shown = "…"  # it may be a key in the wrong place
        raise ValueError(f"base_url = {shown!r}: must be {problem}")
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    return Address(
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}",
        host,
        login if any(login) else None,
        dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


# --- the client ---------------------------------------------------------------------------------------------------

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_HEADERS = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""Variables that the package openai sends along."""


def open_client(address: Address, key_variable: str, secrets: Secrets, *, timeout: float) -> openai.OpenAI:
    """A client for an endpoint, after a look at everything in the environment that it rests on.

    An endpoint on this machine is never asked through a proxy.

    Args:
        address: the endpoint.
        key_variable: environment variable that holds the key; an endpoint on this machine needs none.
        secrets: takes up the key.
        timeout: seconds without a byte from the server before a try is given up.

    Raises:
        TeacherError: no key, a key that cannot be sent, or a variable that cannot be right; the message names it.
        RuntimeError: the package openai is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise RuntimeError("asking an endpoint needs openai: pip install 'routedk-lite[teacher]'") from error
    _keep_secret(address, key_variable, secrets)
    if problem := _key_trouble(address, key_variable) or _certificate_trouble():
        raise TeacherError(problem)
    try:
        return openai.OpenAI(
            base_url=address.endpoint,
            api_key=os.environ.get(key_variable, "").strip() or "none",
            default_query=address.query or None,
            timeout=timeout,
            max_retries=0,  # trying again is up to the teacher, which also does so when a reply is damaged
            http_client=openai.DefaultHttpxClient(
                auth=address.login, timeout=timeout, trust_env=not address.is_local, verify=_certificates()
            ),
        )
    except Exception as error:  # of any library below; what it says may hold a secret, so it is not passed on
        problem = _set_up_trouble(address, error, secrets)
    raise TeacherError(problem)


def _keep_secret(address: Address, key_variable: str, secrets: Secrets) -> None:
    """Whatever may be repeated by a server or logged by a library. No frame that can fail holds it in a variable."""
    headers = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    found = [os.environ.get(name, "").strip() for name in (key_variable, "OPENAI_ADMIN_KEY")]
    found += [*address.secrets, *(line.partition(":")[2].strip() for line in headers)]
    for keeper in (secrets, _HIDING.secrets):
        keeper.add(found)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_HIDING)  # adding it twice changes nothing


def proxy_variable(address: Address) -> str:
    """The environment variable whose proxy an endpoint is asked through; empty if there is none."""
    if address.is_local or proxy_bypass_environment(address.host):
        return ""
    wanted = (f"{address.endpoint.partition(':')[0]}_proxy", "all_proxy")
    found = [name for want in wanted for name in os.environ if name.lower() == want and os.environ[name]]
    return found[0] if found else ""


def _key_trouble(address: Address, variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key and not address.is_local and not address.login:
        said = (
            f"{variable} is not set: put the key for {address.endpoint} into this environment variable (for an "
            "endpoint that asks for none: x)"
        )
        return said.replace("is not set", "is blank", 1) if os.environ.get(variable) else said
    headers = os.environ.get("OPENAI_CUSTOM_HEADERS", "")
    if headers and not all(line.isascii() and line.isprintable() for line in headers.split("\n")):
        return (
            "OPENAI_CUSTOM_HEADERS holds a character that is not plain ASCII: correct this environment variable before "
            f"{address.endpoint} is asked"
        )
    for name, value in ((variable, key), *((name, os.environ.get(name, "")) for name in _HEADERS)):
        if problem := key_problem(value):
            return f"{name} {problem}: correct this environment variable before {address.endpoint} is asked"
    return ""


def _certificate_trouble() -> str:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        value = os.environ.get(name)
        if value and not Path(value).expanduser().exists():
            return f"{name} names {value!r}, which does not exist: correct this environment variable, or unset it"
    folders = os.environ.get("SSL_CERT_DIR")
    if folders and not (os.environ.get("SSL_CERT_FILE") or any(map(os.path.isdir, folders.split(os.pathsep)))):
        return f"SSL_CERT_DIR names {folders!r}, which does not exist: correct this environment variable, or unset it"
    try:
        _certificates()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        (name, *_) = (name for name in _CERTIFICATES if os.environ.get(name))
        value = os.environ[name]
        return f"{name} names {value!r}, which holds no certificates ({error}): correct this environment variable"
    return ""


def _certificates() -> ssl.SSLContext | bool:
    """Whose signatures count: what the environment names, or what the client brings."""
    for name in _CERTIFICATES:
        if path := os.environ.get(name):
            is_folder = name == "SSL_CERT_DIR" or Path(path).expanduser().is_dir()
            return ssl.create_default_context(**{"capath" if is_folder else "cafile": Path(path).expanduser()})
    return True


def _set_up_trouble(address: Address, error: Exception, secrets: Secrets) -> str:
    """Why there is no client. Proxies are the one thing left in the environment that can be wrong."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    found = {name: value for name, value in os.environ.items() if name.lower() in proxies and value}
    if isinstance(error, ImportError):
        names = [name for name, value in found.items() if value.startswith("socks")] or list(found)
        return f"{names[0]} names a SOCKS proxy, which needs a package: pip install socksio, or unset {names[0]}"
    if found:
        names = " or ".join(found)
        return f"{names} cannot be used ({type(error).__name__}): correct this environment variable, or unset it"
    return f"{address.endpoint} cannot be asked ({type(error).__name__}: {secrets.hide(str(error))}): correct base_url"
