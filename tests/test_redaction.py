"""No secret leaves: by the name of its field, by its looks, whole or cut, and by the user's own rule."""

import json
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


# --- what has a structure: in JSON, in what Python shows of it, and where it was cut

NESTED: dict[str, Any] = {
    "credentials": {"user": "canary1", "pin": ["canary2"]},
    "headers": [{"name": "x-api-key", "value": "canary3"}, ["X-Auth-Token", "canary4"], {"key": "cookie", "value": "canary5"}],
    "password": ['canary6 ] "canary6', {"a": "canary6"}],
    "auth": {"basic": "canary7"},
    "city": "Oslo",
}
MASKED: dict[str, Any] = {
    "credentials": MASK,
    "headers": [{"name": "x-api-key", "value": MASK}, ["X-Auth-Token", MASK], {"key": "cookie", "value": MASK}],
    "password": MASK,
    "auth": MASK,
    "city": "Oslo",
}
COMPACT = (",", ":")


@pytest.mark.parametrize("around", ["{}", "\n {} \n", '[1,{},"x"]'])
@pytest.mark.parametrize("layout", [{}, {"separators": COMPACT}, {"indent": 2}], ids=["usual", "compact", "indented"])
def test_json_in_a_text_is_masked_as_what_it_says(layout: dict[str, Any], around: str) -> None:
    masked = mask_text(around.replace("{}", json.dumps(NESTED, **layout)))
    assert json.loads(masked) == json.loads(around.replace("{}", json.dumps(MASKED)))


def test_json_in_json_in_json_is_masked() -> None:
    said = {"function": {"arguments": json.dumps({"body": json.dumps(NESTED)})}}
    body = json.loads(json.loads(sanitize(said)["function"]["arguments"])["body"])  # type: ignore[call-overload, index]
    assert body == MASKED


def test_json_with_a_secret_is_written_in_its_own_way() -> None:
    assert mask_text('{"pwd": {"a": 1}, "é": "ü"}') == f'{{"pwd": "{MASK}", "é": "ü"}}'
    assert mask_text('{"pwd":{"a":1},"e":"\\u00fc"}') == f'{{"pwd":"{MASK}","e":"\\u00fc"}}'


@pytest.mark.parametrize(
    "text",
    [
        '{"key" :1.50,\n"tokens":[ 1e3 ], "api_key": null, "é":"\\u00fc"}',
        '[{"name": "key", "value": "v"}, ["token", true]]',
        '{"token": 5, "secretary": {"name": "Ada"}}',
        "[INST] the token is {a} [/INST]",
    ],
)
def test_json_without_a_secret_stays_byte_for_byte(text: str) -> None:
    assert mask_text(text) == text


def test_a_name_that_comes_twice_in_json_hides_no_secret() -> None:
    assert "canary" not in mask_text('{"password": "canary", "password": null}')


def test_a_name_that_is_written_in_escapes_is_known() -> None:
    assert mask_text('{"p\\u0061ss\\u0077ord": ["canary"]}') == f'{{"password": "{MASK}"}}'


@pytest.mark.parametrize(
    "text",
    [
        f"calling with {json.dumps(NESTED)} now",
        f"```json\n{json.dumps(NESTED, indent=2)}\n```",
        f"{json.dumps(NESTED)}\n{json.dumps(NESTED)}",
        f"said {json.dumps(json.dumps(NESTED))}",
        f"bad arguments: {NESTED!r}",
        "Headers([('x-api-key', 'canary'), ('accept', '*/*')])",
        "Config(credentials=('bob', 'canary'), n=3)",
        json.dumps([NESTED] * 300),
    ],
    ids=["in prose", "fenced", "lines", "quoted", "repr", "pairs", "tuple", "long"],
)
def test_a_structure_in_a_text_that_is_no_json_is_masked_up_to_its_end(text: str) -> None:
    masked = mask_text(text)
    assert "canary" not in masked
    assert masked[-1] == text[-1]


@pytest.mark.parametrize("separators", [None, COMPACT], ids=["usual", "compact"])
def test_a_structure_that_is_cut_anywhere_is_masked(separators: tuple[str, str] | None) -> None:
    text = json.dumps(NESTED, separators=separators)
    for kept in range(40, len(text)):
        sanitized = str(sanitize(text + " " * 1000, limits=Limits(characters=kept)))
        assert "canary" not in sanitized


def test_a_smile_hides_nothing_behind_it() -> None:
    assert mask_text("I forgot my password :( what now?") == f"I forgot my password :{MASK} what now?"


WORDS = "password api_key token authorization sk- eyJ Bearer Basic ://u:p@h :// 123".split()
pieces = st.sampled_from([*LOOKS.values(), *WORDS, MASK, *"=:;\"'\\\n \t@&?,{}[]()a1Z-_.", '","value":"', '{"'])


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
    *(
        "{",
        "[",
        "password=[",
        'password=["',
        "password=(",
        '{"password":[',
        "password={}",
        '["password","',
        '["api_key',
        '["aa',
    ),
]


@pytest.mark.parametrize("piece", ENDLESS)
def test_a_million_characters_of_malice_are_masked_in_time(piece: str) -> None:
    for end in ("", "!", "…[9999999 characters]"):
        assert mask_text(piece * (1_000_000 // len(piece)) + end)


@pytest.mark.parametrize("piece", ["[", '{"password":', '[{"token":"', '["key",', '{"a":"\\\\"},', "[1],"])
def test_what_begins_as_json_and_is_none_is_masked_in_time(piece: str) -> None:
    for length in (1000, 60_000):
        assert mask_text(piece * (length // len(piece)))
        assert mask_text(f'["key",{piece * (length // len(piece))}1]')


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
