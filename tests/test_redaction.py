"""No secret leaves: by the name of its field, by its looks, whole or cut, and by the user's own rule."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebus.payload import Limits, encode, sanitize
from tracebus.redaction import DROPPED, MASK, Redactor, default_redactor, mask_text, set_redactor

pytestmark = pytest.mark.once

# --- by name


@pytest.mark.parametrize(
    "name",
    "api_key apikey apiKey API-KEY x-api-key OPENAI_API_KEY authorization Proxy-Authorization password Passwd"
    " pwd db_password password2 passphrase secret client_secret clientSecret aws_secret_access_key token"
    " secretKeyBase access_token refreshToken id_token auth_token X-Auth-Token session_token bot_token cookie"
    " Set-Cookie cookies private_key privateKey credentials credential dsn connection_string signing_key auth"
    " jwt smtp_pass".split(),
)
def test_a_field_with_the_name_of_a_secret_is_masked(name: str) -> None:
    assert sanitize({name: "canary"}) == {name: MASK}


@pytest.mark.parametrize(
    "name",
    "input_tokens max_tokens maxTokens total_tokens token_count tokenCount tokens token_usage token_type"
    " completion_tokens_details tokenizer eos_token stop_token author session_id secretary key public_key"
    " idempotency_key compass bypass content role".split(),
)
def test_a_field_with_another_name_stays(name: str) -> None:
    assert sanitize({name: "plain"}) == {name: "plain"}


@pytest.mark.parametrize("value", ["canary", 12345, ["canary"], {"user": "canary"}])
def test_whatever_a_secret_is_made_of_is_masked(value: object) -> None:
    assert sanitize({"password": value}) == {"password": MASK}


@pytest.mark.parametrize("value", [None, True, False, ""])
def test_that_there_is_no_secret_may_be_seen(value: object) -> None:
    assert sanitize({"api_key": value}) == {"api_key": value}


def test_a_number_of_tokens_is_no_secret() -> None:
    assert sanitize({"reasoning_token": 5}) == {"reasoning_token": 5}


def test_headers_are_masked_as_a_list_of_pairs() -> None:
    assert sanitize([("x-api-key", "canary"), ("accept", "*/*")]) == [["x-api-key", MASK], ["accept", "*/*"]]


@pytest.mark.parametrize("word", ["name", "key"])
def test_headers_are_masked_as_names_and_values(word: str) -> None:
    assert sanitize([{word: "X-Api-Key", "value": "canary"}]) == [{word: "X-Api-Key", "value": MASK}]


def test_keys_are_masked_and_their_values_kept() -> None:
    assert sanitize({"sk-canarycanary1": 1, "sk-canarycanary2": 2}) == {f"sk-{MASK}": 1, f"sk-{MASK} (2)": 2}


# --- by pattern: {} is where the secret is

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5"
PEM = "-----BEGIN {}PRIVATE KEY-----\nY2FuYXJ5Y2FuYXJ5\n-----END {}PRIVATE KEY-----"
LOOKS = {
    "openai": "sk-canary0123456789ABCDEF",
    "openai project": "sk-proj-canary_0123-456789",
    "anthropic": "sk-ant-api03-canary0123456789_-AA",
    "aws": "AKIACANARYCANARY0123",
    "aws session": "ASIACANARYCANARY0123",
    "github": "ghp_canary0123456789canary0123456789",
    "github oauth": "gho_canary0123456789canary0123456789",
    "github fine": "github_pat_11CANARY0123456789_canarycanarycanary",
    "slack": "xoxb-123456789012-canarycanary",
    "google": "AIzaSyCanary0123456789canary0123456789",
    "stripe": "sk_live_canary0123456789",
    "hugging face": "hf_canary0123456789canary",
    "npm": "npm_canary0123456789canary0123456789",
    "groq": "gsk_canary0123456789canary",
    "jwt": JWT,
    "pem": PEM.replace("{}", ""),
    "pem rsa": PEM.replace("{}", "RSA "),
    "pem cut": "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5",
}
AROUND = [
    "{}",
    "the key is {} ok",
    '{{"a":"{}"}}',
    "key={};",
    "line\n{}\nline",
    r"escaped\n{}",
    "url%20{}",
    "({})",
    "[{}]",
]


@pytest.mark.parametrize("secret", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("around", AROUND)
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(secret: str, around: str) -> None:
    masked = mask_text(around.format(secret))
    assert MASK in masked
    assert "canary" not in masked.lower()
    assert "Y2FuYXJ5" not in masked


ASSIGNED = [
    ("Authorization: Bearer {}", "Authorization: {}"),
    ("using Bearer {} here", "using Bearer {} here"),
    ("using Basic dXNlcjpjYW5hcnk= here", "using Basic {} here"),
    ("curl -H 'Authorization: Token {}' https://a.b", "curl -H 'Authorization: {}"),
    ("Cookie: a=1; session={}\nAccept: x", "Cookie: {}\nAccept: x"),
    ("x-api-key: {}", "x-api-key: {}"),
    ("X-Auth-Token: {}", "X-Auth-Token: {}"),
    ("password={}", "password={}"),
    ("PASSWORD = {} next", "PASSWORD = {} next"),
    ("Server=db;Password={};Encrypt=true", "Server=db;Password={};Encrypt=true"),
    ('api_key: "{}"', 'api_key: "{}"'),
    ("Client(api_key='{}', n=3)", "Client(api_key='{}', n=3)"),
    ('{"api_key": "{}", "n": 3}', '{"api_key": "{}", "n": 3}'),
    (r"{\"api_key\": \"{}\", \"n\": 3}", r"{\"api_key\": \"{}\", \"n\": 3}"),
    (r'password = "with \" {} and blanks" x', 'password = "{}" x'),
    ('os.environ["OPENAI_API_KEY"] = "{}"', 'os.environ["OPENAI_API_KEY"] = "{}"'),
    ("export MY_SECRET={}", "export MY_SECRET={}"),
    ("https://host/a?api_key={}&q=hello", "https://host/a?api_key={}&q=hello"),
    ("https://host/a?q=hello&token={}", "https://host/a?q=hello&token={}"),
    ("https://host/a?key={}", "https://host/a?key={}"),
    ("https://host/a?X-Amz-Signature={}&b=1", "https://host/a?X-Amz-Signature={}&b=1"),
    ("postgres://user:{}@host:5432/db", "postgres://user:{}@host:5432/db"),
    ("postgres://user:p@{}@host/db", "postgres://user:{}@host/db"),
    ("redis://:{}@host", "redis://:{}@host"),
    ("\u0130PASSWORD={}", "\u0130PASSWORD={}"),
]


@pytest.mark.parametrize(("text", "masked"), ASSIGNED)
def test_a_secret_in_a_text_is_masked_and_the_rest_kept(text: str, masked: str) -> None:
    assert mask_text(text.replace("{}", "canary123")) == masked.replace("{}", MASK)


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=100, tokens: 5, token_count: 7, token=5",
        "0.002 per token: cheap; token: the smallest unit",
        "a task-based, risk-averse, disk-usage-monitoring-service",
        "Basic understanding of Basic JavaScript; the bearer of news",
        "http://localhost:8080/@user and https://host:443/a@b?c=d",
        "password: '' and api_key=",
        "the secretary: bob",
        "sha-256, UTF-8, 3-4 items, snake_case_name, gpt-5-mini",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_an_ordinary_text_stays(text: str) -> None:
    assert mask_text(text) == text


WORDS = "password api_key token authorization sk- eyJ Bearer Basic ://u:p@h :// 123".split()
pieces = st.sampled_from([*LOOKS.values(), *WORDS, MASK, *"=:;\"'\\\n \t@&?,{}a1Z-_."])


@given(st.lists(pieces, max_size=20).map("".join))
def test_masking_twice_changes_nothing(text: str) -> None:
    masked = mask_text(text)
    assert mask_text(masked) == masked


# --- where a text is cut


def cuts() -> Iterator[tuple[str, int]]:
    for secret in LOOKS.values():
        yield f"the key is {secret} and more", len("the key is ")
    for text in (
        "Authorization: Bearer {}",
        "Bearer {}",
        "a://user:{}@host/db",
        'password="{}"',
        "?token={}",
        "api-key: {}",
    ):
        yield f"a text {text.replace('{}', 'Canary0123456789')} and more", 7 + text.index("{}")


@pytest.mark.parametrize(("text", "start"), list(cuts()))
def test_a_secret_that_a_limit_cuts_is_masked(text: str, start: int) -> None:
    """Of half a secret no more is seen than its prefix, which says what kind it is."""
    for kept in range(start + 1, len(text)):
        note = f"…[{len(text) + 100} characters]"
        sanitized = str(sanitize(text + "x" * 100, limits=Limits(characters=kept + len(note))))
        assert sanitized.endswith(note)
        for tell in ("canary", "Cana", "CANA", "Y2Fu", "eyJhb", "eyJz", "123", "SyC"):
            assert tell not in sanitized


def test_a_cut_inside_a_text_of_json_is_seen_too() -> None:
    assert mask_text('{"a":"x eyJhbGciOiJ…[99 characters]","b":1}') == '{"a":"x *******…[99 characters]","b":1}'.replace(
        "*******", MASK
    )


def test_a_cut_between_words_takes_nothing_away() -> None:
    assert mask_text("plain words…[99 characters]") == "plain words…[99 characters]"


# --- no text takes long: a pattern that were not linear would run into the test's time limit

ENDLESS = [
    *("sk-", "sk_live_", "eyJ", "eyJaaaaaaaa.", "AKIA", "xoxb-", "ghp_", "pypi-", "-----BEGIN PRIVATE KEY-----"),
    *(
        "-----BEGIN ",
        "://",
        "://a:",
        "://a:b@",
        "bearer ",
        "basic ",
        "Basic aB3d",
        "password",
        "password=",
        'password="',
    ),
    *(
        "password:",
        "password=\\",
        'password=\\"',
        "password ",
        "token",
        "token ",
        "token=1",
        "api_",
        "authorization:",
        "cookie=a;",
    ),
    *(
        "?",
        "?signature",
        "&a-",
        "\\",
        '"',
        "'",
        "=",
        ":",
        " ",
        "\t",
        "a",
        "1",
        ".",
        "-",
        "_",
        "%20eyJ",
        "…[1 characters]",
    ),
]


@pytest.mark.parametrize("piece", ENDLESS)
def test_a_million_characters_of_malice_are_masked_in_time(piece: str) -> None:
    for end in ("", "!", "…[9999999 characters]"):
        assert mask_text(piece * (1_000_000 // len(piece)) + end)


# --- the user's rule


def test_a_rule_sees_every_value_masked_and_with_its_path() -> None:
    seen: list[tuple[tuple[str | int, ...], Any]] = []

    def watch(path: tuple[str | int, ...], value: Any) -> Any:
        seen.append((path, value))
        return value

    sanitize({"messages": [{"content": "pwd=canary"}], "token": "canary"}, Redactor(watch))
    assert seen == [
        (("messages", 0, "content"), f"pwd={MASK}"),
        (("messages", 0), {"content": f"pwd={MASK}"}),
        (("messages",), [{"content": f"pwd={MASK}"}]),
        (("token",), MASK),
        ((), {"messages": [{"content": f"pwd={MASK}"}], "token": MASK}),
    ]


def test_what_a_rule_returns_is_what_leaves() -> None:
    redactor = Redactor(lambda path, value: "[mail]" if path == ("mail",) else value)
    assert sanitize({"mail": "a@b.c", "n": 1}, redactor) == {"mail": "[mail]", "n": 1}


@pytest.mark.parametrize("error", [ValueError, SystemExit, RecursionError])
def test_a_rule_that_raises_drops_the_value(error: type[BaseException]) -> None:
    def fail(path: tuple[str | int, ...], value: Any) -> Any:
        if path == ("a",):
            raise error
        return value

    assert sanitize({"a": "canary", "b": 1}, Redactor(fail)) == {"a": DROPPED, "b": 1}


def test_the_default_redactor_can_be_replaced_and_put_back() -> None:
    former = set_redactor(Redactor(lambda path, value: "[gone]"))
    try:
        assert sanitize("text") == "[gone]"
    finally:
        replaced = set_redactor(former)
    assert replaced is not former
    assert default_redactor() is former
    assert sanitize("text") == "text"


# --- canaries


def test_no_canary_leaves_in_arguments_headers_urls_and_exceptions() -> None:
    value = {
        "args": ["sk-ant-canary0123456789", {"password": "canary1"}],
        "headers": {"Authorization": "Bearer canary2canary", "X-Api-Key": "canary3", "Cookie": "sid=canary4"},
        "raw": [["authorization", "canary5"], ["x-api-key", "canary6"]],
        "url": "https://user:canary7@host/a?api_key=canary8&access_token=canary9",
        "error": ValueError("401 for key sk-canary0123456789 at https://u:canary10@h"),
        "env": "OPENAI_API_KEY=canary11 DATABASE_URL=postgres://u:canary12@h/db",
        "tool": '{"api_key": "canary13", "nested": "{\\"password\\": \\"canary14\\"}"}',
    }
    assert b"canary" not in encode(sanitize(value))
