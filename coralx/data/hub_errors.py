"""Errors on the way to a model or data set of the hub: what is wrong, and what to do."""

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

OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
DATA_SWITCHES = ("HF_DATASETS_OFFLINE", *OFFLINE_SWITCHES)
"""Environment variables that keep the hub's clients from the network."""

ON = ("1", "ON", "YES", "TRUE")
"""Values that its clients take for true."""

Error = TypeVar("Error", bound=BaseException)


@dataclass(frozen=True)
class HubProblem:
    """What is wrong, as the end of a sentence about the name, and what to do."""

    what: str
    way_out: str


def hub_problem(error: Exception, name: str, kind: Kind) -> HubProblem | None:
    """What is wrong with the name, the access or the connection; None for an error of another kind.

    Libraries wrap the errors of the hub's client, each in its own way, so all that an error wraps
    is looked at.
    """
    if not isinstance(error, OSError | httpx.HTTPError):
        return None
    chain = list(_chain(error))
    here = "a folder on this machine" if kind == "model" else "a file on this machine"
    not_found = _first_of(chain, DatasetNotFoundError)
    # For a gated data set, datasets raises the same error and says so in its text alone.
    is_gated = not_found is not None and "gated" in str(not_found)
    if _first_of(chain, GatedRepoError) or is_gated:
        page = f"{constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{name}"
        return HubProblem(
            "access to it is restricted",
            f"Ask for access at {page}, and log in: hf auth login (or set HF_TOKEN).",
        )
    if not_found is not None or _first_of(chain, RepositoryNotFoundError):
        return HubProblem(
            f"the hub has no {kind} of this name, or it is private",
            f"Correct the name, give {here}, or log in if it is private: hf auth login (or set "
            "HF_TOKEN).",
        )
    if _first_of(chain, HFValidationError):
        return HubProblem(
            f"it is not {here}, and names on the hub have the form owner/name",
            f"Correct the name, or give {here}.",
        )
    refusal = _first_of(chain, HfHubHTTPError)
    if refusal is not None:
        return _refused(refusal.response, here)
    return _unreached(chain, kind, here, name)


def reason(error: BaseException) -> str:
    """The first line of an error's text, or its class."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _refused(response: httpx.Response, here: str) -> HubProblem:
    """The hub answers, but not with what was asked for."""
    status = f"{response.status_code} {response.reason_phrase}"
    if response.status_code in (401, 403):
        return HubProblem(
            f"the hub refuses the access token ({status})",
            "Log in again (hf auth login), or correct or unset HF_TOKEN.",
        )
    return HubProblem(f"the hub answers {status}", f"Try again later, or give {here}.")


def _unreached(chain: list[BaseException], kind: Kind, here: str, name: str) -> HubProblem | None:
    """There is no connection, or none may be made; None for errors of other kinds."""
    kinds = (ConnectionError, TimeoutError, httpx.HTTPError, LocalEntryNotFoundError)
    failures = [error for error in chain if isinstance(error, kinds)]
    if not failures:
        return None
    switches = OFFLINE_SWITCHES if kind == "model" else DATA_SWITCHES
    switch = next((s for s in switches if os.environ.get(s, "").upper() in ON), None)
    if switch is not None:
        fetch = f"fetch it once (hf download {name})" if kind == "model" else "load it once"
        return HubProblem(
            f"it is not in the cache, and {switch}={os.environ[switch]} keeps it from being "
            "fetched",
            f"Unset {switch} to {fetch}, or give {here}.",
        )
    return HubProblem(
        f"it is not in the cache, and the hub cannot be reached ({reason(failures[-1])})",
        f"Check the network (and HTTPS_PROXY, HF_ENDPOINT), or give {here}.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_of(chain: list[BaseException], kind: type[Error]) -> Error | None:
    return next((error for error in chain if isinstance(error, kind)), None)
