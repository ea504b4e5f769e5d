"""Calls by Serve's handle are checked as those of the other protocols are."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from tests.cluster.served import promote, register, serving
from umbel.cluster.serving.calls import LONGEST_GROUP, LONGEST_KEY, LONGEST_REQUEST_ID, Calls
from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.storage.store import Store, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("called") / "store"))
    register(store, 1.0)
    promote(store, 1)
    return store


def call(store: Store, group: Any, request_id: Any = "r", key: Any = None, inputs: Any = (1.0,)) -> dict[str, Any]:
    async def answer() -> dict[str, Any]:
        async with serving(store) as client:
            return await Calls(client.server).call(group, list(inputs), request_id, key)

    return asyncio.run(answer())


def test_a_call_is_answered(store: Store) -> None:
    expected = {"outputs": [2.0], "version": 1, "alias": "champion", "request_id": "r"}
    assert call(store, {"country": "FRA"}) == expected
    assert call(store, "FRA") == call(store, "FRA", key="k" * LONGEST_KEY) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": "k" * (LONGEST_KEY + 1)}, f"at most {LONGEST_KEY}"),
        ({"key": "\ud800"}, "key is missing"),
        ({"key": ["user"]}, "key is missing"),
        ({"key": True}, "key is missing"),
        ({"request_id": "r" * (LONGEST_REQUEST_ID + 1)}, "id of a request"),
        ({"request_id": "a\nb"}, "id of a request"),
        ({"request_id": 7}, "request_id is missing"),
        ({"group": "g" * (LONGEST_GROUP + 1)}, "name of a group"),
        ({"group": "\ud800"}, "group is missing"),
        ({"group": 7}, "group is missing"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_that_crosses_processes(
    store: Store, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        call(store, **{"group": "FRA", **given})
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_what_the_model_has_to_say_stays(store: Store) -> None:
    with pytest.raises(NotFoundError, match="FRA"):
        call(store, "FRAN")
    with pytest.raises(UsageError, match=r"inputs\.0"):
        call(store, "FRA", inputs=["x"])


def test_groups_by_key_are_those_that_there_are(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no group of this name"):
        call(store, {"country": "FRAN"})
    with pytest.raises(NotFoundError, match="named by its keys"):
        call(store, {"state": "FRA"})
