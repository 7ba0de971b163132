"""Masking of keys in errors, replies and reprs."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import parse_qsl, quote, unquote

MASK = "***"
_SHORTEST = 6  # characters; a shorter key is a placeholder and may be an ordinary word
_SECRET = re.compile(
    r"key$|token|secret|passw|auth$|authori[sz]|cookie|credential|signature", re.IGNORECASE
)
_USER = re.compile(r"^([^/?#@]*//)?[^/?#]*@")  # the part before the host of an address


def keys_of(named: Mapping[str, object], addresses: Iterable[str | None]) -> tuple[str, ...]:
    """Return all spellings of the keys in named values and URLs, longest first.

    Keys are values named like a key, also in nested mappings and lists, and a URL's user,
    password and query keys.
    """
    found = set(_named_keys(named))
    for address in addresses:
        found |= set(_address_keys(address or ""))
    spelled = {s for key in found for s in _spellings(key) if len(s) >= _SHORTEST}
    return tuple(sorted(spelled, key=lambda s: (-len(s), s)))


def masked(text: str, keys: Sequence[str]) -> str:
    """Return a text with a mask for every key of `keys_of`; mask before cutting the text."""
    for key in keys:
        text = text.replace(key, MASK)
    return text


def masked_address(address: str) -> str:
    """Return a URL without the user and the password before its host."""
    return _USER.sub(rf"\1{MASK}@", address)


def masked_values(value: object) -> object:
    """Return nested mappings and sequences with a mask for every text named like a key."""
    if isinstance(value, Mapping):
        return {
            k: MASK if isinstance(v, str) and _SECRET.search(str(k)) else masked_values(v)
            for k, v in value.items()
        }
    return [masked_values(v) for v in value] if isinstance(value, list | tuple) else value


def _named_keys(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(item, str) and _SECRET.search(str(name)):
                yield from (item, item.split(" ")[-1])  # 'Bearer KEY' is a key and contains one
            else:
                yield from _named_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named_keys(item)


def _address_keys(address: str) -> Iterator[str]:
    user = _USER.match(address)
    if user is not None:
        before = user[0].rpartition("//")[2].removesuffix("@")
        name, _, password = (unquote(part) for part in before.partition(":"))
        yield from (before, password or name)
        yield base64.b64encode(f"{name}:{password}".encode()).decode()
    query = address.partition("?")[2].partition("#")[0]
    yield from _named_keys(dict(parse_qsl(query)))


def _spellings(key: str) -> Iterator[str]:
    """Yield a key as it is, and as URLs, JSON and Python write it."""
    for text in (key, key.strip()):
        yield from (text, unquote(text), quote(text, safe=""), quote(text))
        yield from (json.dumps(text)[1:-1], repr(text)[1:-1])
