"""`umbel.storage.redaction`: credentials go, everything else stays."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.storage.redaction import REDACTED, redact, redact_argv, redact_url

SECRET_NAMES = [
    "token",
    "TOKEN",
    "HF_TOKEN",
    "github-token",
    "authToken",
    "APIToken",
    "token_value",
    "secret",
    "client_secret",
    "AWS_SECRET_ACCESS_KEY",
    "aws_access_key_id",
    "accessKeyId",
    "password",
    "Password2",
    "dbpassword",
    "DB_PASSWD",
    "DATABASE_PASS",
    "smtp-pass",
    "passphrase",
    "pwd",
    "api_key",
    "api-keys",
    "apikey",
    "APIKey",
    "x-api-key",
    "credential",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "auth",
    "basic_auth",
    "Authorization",
    "private_key",
    "privateKey",
    "session_key",
    "account_key",
    "cookie",
]
OTHER_NAMES = [
    "author",
    "authors",
    "authority",
    "tokens",
    "tokens_per_s",
    "max_tokens",
    "token_count",
    "pad_token",
    "eos_token",
    "tokenizer",
    "keyboard",
    "pass",
    "first_pass",
    "forwardPass",
    "passes",
    "key",
    "keys",
    "primary_key",
    "partition_key",
    "secretary",
    "passenger",
    "compass",
    "monkey",
    "sig",
    "signature",
    "alpha",
    "",
    "name",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_values_under_the_name_of_a_credential_are_replaced(name: str) -> None:
    assert redact({name: "hunter2"}) == {name: REDACTED}
    assert redact({name: 1234}) == {name: REDACTED}
    assert redact({name: {"user": "ada", "data": ["hunter2"]}}) == {name: REDACTED}
    assert redact([{"name": name, "value": "hunter2"}]) == [{"name": name, "value": REDACTED}]
    assert redact_argv([f"--{name}", "hunter2", "rest"]) == [f"--{name}", REDACTED, "rest"]
    assert redact_argv([f"--{name}=hunter2"]) == [f"--{name}={REDACTED}"]
    assert redact_argv([f"{name}=hunter2"]) == [f"{name}={REDACTED}"]
    assert "hunter2" not in redact_url(f"https://host/x?a=1&{name}=hunter2&b=2")


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_names_are_left_alone(name: str) -> None:
    value = {name: "shown"}
    assert redact(value) == value
    assert redact_argv([f"--{name}", "shown", f"--{name}=shown", f"{name}=shown"]) == [
        f"--{name}",
        "shown",
        f"--{name}=shown",
        f"{name}=shown",
    ]


def test_the_folder_that_a_shell_is_in_stays() -> None:
    assert redact({"PWD": "/home/ada", "pwd": "x"}) == {"PWD": "/home/ada", "pwd": REDACTED}


def test_what_says_that_nothing_was_given_stays() -> None:
    value = {"token": None, "password": "", "use_auth_token": True, "auth": False}
    assert redact(value) == value


class Login(NamedTuple):
    user: str
    password: str


def test_containers_keep_their_kind_and_the_input_is_not_changed() -> None:
    value = {"a": [("x", {"token": "t"})], "b": Login("ada", "p"), "c": {"s3://k:s@b"}, 5: 1.5, "d": b"x"}
    assert redact(value) == {
        "a": [("x", {"token": REDACTED})],
        "b": Login("ada", REDACTED),
        "c": {f"s3://k:{REDACTED}@b"},
        5: 1.5,
        "d": b"x",
    }
    assert value["a"] == [("x", {"token": "t"})]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/path", "s3://bucket/path"),
        ("s3://key:s3cr3t@bucket/path", f"s3://key:{REDACTED}@bucket/path"),
        ("redis://:s3cr3t@host:6379/0", f"redis://:{REDACTED}@host:6379/0"),
        ("https://a:p@ss@host/x", f"https://a:{REDACTED}@host/x"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("https://host:8080/x@y", "https://host:8080/x@y"),
        ("simplecache::ftp://a:p@h/x", f"simplecache::ftp://a:{REDACTED}@h/x"),
        ("https://h/x?sv=1&sig=abc%3D&se=2", f"https://h/x?sv=1&sig={REDACTED}&se=2"),
        ("https://h/x?X-Amz-Date=1&X-Amz-Signature=abc", f"https://h/x?X-Amz-Date=1&X-Amz-Signature={REDACTED}"),
        ("https://h/x?key=abc#part", f"https://h/x?key={REDACTED}#part"),
        ("https://ghp_" + "a" * 36 + "@github.com/x", f"https://{REDACTED}@github.com/x"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact({"store": url}) == {"store": shown}
    assert redact_argv(["--store", url]) == ["--store", shown]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host=h user=u password=hunter2 port=1", f"host=h user=u password={REDACTED} port=1"),
        ('{"lags": 3, "password": "hunter2"}', f'{{"lags": 3, "password": "{REDACTED}"}}'),
        ("Authorization: Bearer hunter2hunter2", f"Authorization: {REDACTED}"),
        ("Cookie: a=b; c=hunter2", f"Cookie: {REDACTED}"),
        ("python run.py --token hunter2 --lags 3", f"python run.py --token {REDACTED} --lags 3"),
        ("--set=password=hunter2", f"--set=password={REDACTED}"),
        ("id AKIAIOSFODNN7EXAMPLE.", f"id {REDACTED}."),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nrest", f"{REDACTED}\nrest"),
        ("the author says: tokens = 3, key: value", "the author says: tokens = 3, key: value"),
    ],
)
def test_texts_that_carry_credentials(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact_argv([text]) == [shown]


def test_a_value_that_begins_with_a_dash_is_hidden_but_the_next_option_is_not() -> None:
    assert redact_argv(["--token", "-x9"]) == ["--token", REDACTED]
    assert redact_argv(["--token", "--verbose", "x"]) == ["--token", "--verbose", "x"]
    assert redact_argv(["run", "token"]) == ["run", "token"]


_names = st.sampled_from(SECRET_NAMES + OTHER_NAMES) | st.text(max_size=8)
_nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=8,
)


@given(_nested)
def test_redacting_again_changes_nothing(value: Any) -> None:
    once = redact(value)
    assert redact(once) == once


@given(
    _nested,
    st.lists(st.one_of(st.integers(0, 2), st.sampled_from(OTHER_NAMES[:4])), max_size=4),
    st.sampled_from(SECRET_NAMES),
    st.text(st.characters(categories=["L", "N"]), min_size=12, max_size=20).map(lambda text: f"xX{text}Xx"),
)
def test_a_credential_is_found_at_any_depth(value: Any, path: list[int | str], name: str, secret: str) -> None:
    nested: Any = {"beside": value, name: secret}
    for step in path:
        nested = [nested] * step + [nested] if isinstance(step, int) else {step: nested}
    assert secret not in repr(redact(nested))


@given(st.lists(st.text(max_size=20), max_size=5))
def test_a_command_line_keeps_its_length(argv: list[str]) -> None:
    found = redact_argv(argv)
    assert len(found) == len(argv)
    assert redact_argv(found) == found


@given(_nested)
def test_values_without_credentials_keep_their_shape(value: Any) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return len(value)
        return len(value) if isinstance(value, list) else type(value)

    assert shape(redact(value)) == shape(value)
