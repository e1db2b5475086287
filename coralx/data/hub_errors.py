"""What goes wrong with a model or data set of the hub, in words and with a way out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import httpx
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

Kind = Literal["model", "data set"]

SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
OF_DATA = ("HF_DATASETS_OFFLINE",)
ON = ("1", "ON", "YES", "TRUE")
"""How its client reads such a variable."""

Found = TypeVar("Found", bound=BaseException)


@dataclass(frozen=True)
class Trouble:
    """What is the matter, as the end of a sentence about the name, and what to do."""

    what: str
    way_out: str


def trouble(error: Exception, name: str, kind: Kind) -> Trouble | None:
    """What an error on the way to the hub says of the hub; None for an error of another kind.

    Its client's errors come wrapped, and differently by library: the wrapped ones are looked at.
    """
    if not isinstance(error, OSError | httpx.HTTPError):
        return None
    chain = list(_chain(error))
    here = "a folder on this machine" if kind == "model" else "a file on this machine"
    told = _of(chain, DatasetNotFoundError)
    if _of(chain, GatedRepoError) or (told is not None and "gated" in str(told)):
        page = f"{constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{name}"
        return Trouble(
            "access to it is restricted",
            f"Ask for access at {page}, and log in: hf auth login (or set HF_TOKEN).",
        )
    if told is not None or _of(chain, RepositoryNotFoundError):
        return Trouble(
            f"the hub has no {kind} of this name, or it is private",
            f"Correct the name, give {here}, or log in if it is private: hf auth login (or set "
            "HF_TOKEN).",
        )
    if _of(chain, HFValidationError):
        return Trouble(
            f"it is not {here}, and the hub's names are of the form owner/name",
            f"Correct the name, or give {here}.",
        )
    if answer := _of(chain, HfHubHTTPError):
        return _refused(answer.response, here)
    return _unreached(chain, kind, here, name)


def reason(error: BaseException) -> str:
    """The first line of an error's text, or its class."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _refused(response: httpx.Response, here: str) -> Trouble:
    """The hub answers, but not with what was asked for."""
    status = f"{response.status_code} {response.reason_phrase}"
    if response.status_code in (401, 403):
        return Trouble(
            f"the hub refuses the access token ({status})",
            "Log in anew: hf auth login, or correct or unset HF_TOKEN.",
        )
    return Trouble(f"the hub answers {status}", f"Try again later, or give {here}.")


def _unreached(chain: list[BaseException], kind: Kind, here: str, name: str) -> Trouble | None:
    kinds = (ConnectionError, TimeoutError, httpx.HTTPError, LocalEntryNotFoundError)
    met = [error for error in chain if isinstance(error, kinds)]
    if not met:
        return None
    switches = SWITCHES if kind == "model" else (*OF_DATA, *SWITCHES)
    switch = next((s for s in switches if os.environ.get(s, "").upper() in ON), None)
    if switch is not None:
        fetched = f"fetch it (hf download {name})" if kind == "model" else "load it once"
        return Trouble(
            f"it is not in the cache, and {switch}={os.environ[switch]} keeps it from being "
            "fetched",
            f"Unset {switch}, {fetched} while it is unset, or give {here}.",
        )
    return Trouble(
        f"it is not in the cache, and the hub cannot be reached ({reason(met[-1])})",
        f"Check the network (and HTTPS_PROXY, HF_ENDPOINT), or give {here}.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of(chain: list[BaseException], kind: type[Found]) -> Found | None:
    return next((error for error in chain if isinstance(error, kind)), None)
