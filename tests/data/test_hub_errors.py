"""Models and data sets that the hub does not give: what is said about it."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from coralx.config.tables import Table
from coralx.data import hub_errors as hub
from coralx.data import reading
from coralx.errors import ConfigError

SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)


def answer(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    request = httpx.Request("HEAD", "https://hub/x")
    return kind("no", response=httpx.Response(status, request=request))


def within(cause: BaseException, error: Exception | None = None) -> Exception:
    """As transformers passes errors of the hub's client on."""
    try:
        raise error or OSError("We couldn't connect") from cause
    except Exception as wrapped:
        return wrapped


NO_NETWORK = within(httpx.ConnectError("[Errno -2] no name"), LocalEntryNotFoundError("not here"))


@pytest.mark.parametrize(
    ("error", "kind", "what", "way_out"),
    [
        (within(answer(GatedRepoError, 403)), "model", "restricted", f"{constants.ENDPOINT}/a/b,"),
        (DatasetNotFoundError("'a/b' is a gated dataset"), "data set", "restricted", "/datasets/a"),
        (within(answer(RepositoryNotFoundError, 401)), "model", "no model of this name", "log in"),
        (DatasetNotFoundError("it doesn't exist"), "data set", "no data set of this name", "name"),
        (within(HFValidationError("form")), "model", "owner/name", "Correct the name"),
        (answer(HfHubHTTPError, 401), "data set", "token (401 Unauthorized)", "HF_TOKEN"),
        (within(answer(HfHubHTTPError, 503)), "model", "answers 503 Service Unav", "later"),
        (within(NO_NETWORK), "model", "cannot be reached ([Errno -2] no name)", "network"),
        (
            ConnectionError("Couldn't reach 'a/b'"),
            "data set",
            "be reached (Couldn't",
            "HTTPS_PROXY",
        ),
    ],
)
def test_each_refusal_has_its_words(
    error: Exception, kind: hub.Kind, what: str, way_out: str
) -> None:
    found = hub.hub_problem(error, "a/b", kind)
    assert found is not None
    assert what in found.what
    assert way_out in found.way_out


@pytest.mark.parametrize(
    ("error", "kind", "switch"),
    [
        (within(LocalEntryNotFoundError("disabled")), "model", "HF_HUB_OFFLINE"),
        (within(OfflineModeIsEnabled("off")), "model", "TRANSFORMERS_OFFLINE"),
        (ConnectionError("(OfflineModeIsEnabled)"), "data set", "HF_HUB_OFFLINE"),
        (ConnectionError("(OfflineModeIsEnabled)"), "data set", "HF_DATASETS_OFFLINE"),
    ],
)
def test_an_offline_switch_is_named(
    error: Exception, kind: hub.Kind, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch, "yes")
    found = hub.hub_problem(error, "a/b", kind)
    assert found is not None
    assert found.what == f"it is not in the cache, and {switch}=yes keeps it from being fetched"
    assert found.way_out.startswith(f"Unset {switch} to ")
    monkeypatch.setenv(switch, "0")
    found = hub.hub_problem(error, "a/b", kind)
    assert found is not None
    assert switch not in found.what


@pytest.mark.parametrize(
    "error", [ValueError("bad"), OSError("no file named model.safetensors"), KeyError("x")]
)
def test_other_errors_are_none_of_the_hubs(error: Exception) -> None:
    assert hub.hub_problem(error, "a/b", "model") is None


def raising(error: Exception) -> Callable[..., None]:
    def load(*_: object, **__: object) -> None:
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "says", "hint"),
    [
        (ConnectionError("off"), "HF_HUB_OFFLINE=1 keeps it", "Unset HF_HUB_OFFLINE"),
        (ValueError('Unknown split "train"'), 'read: Unknown split "train"', "has a split 'train'"),
    ],
)
def test_a_data_set_that_the_hub_does_not_give_is_no_matter_of_delimiters(
    error: Exception, says: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(reading, "load_dataset", raising(error))
    with pytest.raises(ConfigError) as caught:
        reading.read_table(Table(), "a/b", "data.train", (), [])
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert "delimiter" not in caught.value.hint
