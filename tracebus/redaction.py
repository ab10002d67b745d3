"""What must not leave the process: secrets masked by name and by pattern, and the user's own rule.

It works on the JSON types that a snapshot is made of; how any other value becomes those is in ``payload``. A
word masked too many is preferred to a secret let through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["JSON", "Redactor", "Rule", "default_redactor", "set_redactor", "DROPPED", "MASK", "free_name", "mask_text"]

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
Rule: TypeAlias = Callable[[tuple[str | int, ...], Any], object]

MASK: Final = "**********"
"""What stands for a secret."""
DROPPED: Final = "[dropped: redaction rule failed]"
"""What stands for a value whose rule raised."""


class Redactor:
    """Mask the secrets in a snapshot, then ask the user's ``rule`` about every value that is left.

    ``rule(path, value)`` returns what may leave instead of ``value``; ``path`` holds the keys and the 0-based
    indices that lead there. Inner values come first, so a rule sees nothing unmasked. One that raises drops
    the value.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self._rule = rule

    def mask(self, value: JSON) -> Any:
        """Return a copy of ``value`` without its secrets: JSON types, except for what the rule returned."""
        return self._mask(value, ())

    def _mask(self, value: JSON, path: tuple[str | int, ...]) -> Any:
        masked: Any = value
        if isinstance(value, str):
            masked = mask_text(value) if len(value) > _REMEMBERED else _mask_again(value)
        elif isinstance(value, dict):
            masked = self._mask_fields(_hide_named(value), path)
        elif isinstance(value, list):
            masked = [self._mask(_hide_paired(item), (*path, index)) for index, item in enumerate(value)]
        return masked if self._rule is None else _apply(self._rule, path, masked)

    def _mask_fields(self, fields: dict[str, JSON], path: tuple[str | int, ...]) -> dict[str, Any]:
        masked: dict[str, Any] = {}
        for key, item in fields.items():
            name = free_name(_mask_again(key), masked)
            masked[name] = self._mask(MASK if _is_secret(key, item) else item, (*path, name))
        return masked


def _apply(rule: Rule, path: tuple[str | int, ...], value: Any) -> object:
    try:
        return rule(path, value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever a rule raises, SystemExit too: what it did not pass stays here
        return DROPPED


_redactor = _by_name = Redactor()


def default_redactor() -> Redactor:
    """Return the redactor that masks where no other is given."""
    return _redactor


def set_redactor(redactor: Redactor) -> Redactor:
    """Make ``redactor`` the one that masks where no other is given; return the one before it."""
    global _redactor
    former, _redactor = _redactor, redactor
    return former


def free_name(name: str, taken: Collection[str]) -> str:
    """Return ``name``, with a number behind it if it is taken: two keys with one text lose no value."""
    free, number = name, len(taken)
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def mask_text(text: str) -> str:
    """Return ``text`` with every secret in it masked, also those that the cut of a snapshot has halved.

    What is JSON is masked as what it says is, and stays as it is written when there is no secret in it.
    """
    masked = _mask_json(text) if len(text) <= _PARSED and _JSON_BEGINS.match(text) else None
    return _mask_written(text) if masked is None else masked


def _mask_written(text: str) -> str:
    if " characters]" not in text:
        return _mask_secrets(text)
    *halved, rest = _CUT.split(text)
    pieces = [_mask_halved(head) + note for head, note in zip(halved[::2], halved[1::2], strict=True)]
    return "".join((*pieces, _mask_secrets(rest)))


_REMEMBERED: Final = 4096
"""Characters of the longest text of which is remembered what it was masked to: a conversation says all of it at each turn."""


_PARSED: Final = 64 * 1024
"""Characters of the longest text that is read as JSON: an output never asks for more than half of it."""
_JSON_BEGINS: Final = re.compile(r"\s*+[\[{]")


def _mask_json(text: str) -> str | None:
    """Return a text of JSON masked; None for one that is none, or in which nothing has the name of a secret."""
    folded = text.lower()
    if text.endswith(" characters]") or ("\\u" not in folded and not any(hint in folded for hint in _NAME_HINTS)):
        return None
    try:
        said = _parse_json(text)
        masked = _by_name.mask(said)
        if masked == said:
            return text
        separators = (", ", ": ") if '": ' in text else (",", ":")
        return json.dumps(masked, ensure_ascii=text.isascii(), allow_nan=False, separators=separators)
    except (ValueError, RecursionError):
        return None


def _without_twins(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("of two values with one name the first would be looked at by nobody")
    return fields


_parse_json: Final[Callable[[str], JSON]] = json.JSONDecoder(object_pairs_hook=_without_twins).decode


@lru_cache(maxsize=1024)
def _mask_again(text: str) -> str:
    return mask_text(text)


# By name: words with anything behind them (`password_2`, `secretKeyBase`), and words that must be the last,
# because `token` is a secret but `tokens`, `max_tokens`, `token_count` and `token_usage` are numbers.
_BLANK = "[ _-]?"
_KEYS = ("api", "private", "access", "account", "master", "encryption", "signing", "subscription")
_WORDS = (
    *("passw(?:or)?d", "passphrase", "pwd", "secret(?!ar)", "credential", f"connection{_BLANK}string"),
    *(f"{kind}{_BLANK}key" for kind in _KEYS),
)
_LAST_WORDS = ("authorization", "cookies?", "auth", "pass(?<![a-z]pass)", "dsn", "jwt")
_TOKEN = rf"token{_BLANK}\d*+"

_NAME: Final = re.compile(rf"{'|'.join(_WORDS)}|(?:{'|'.join((*_LAST_WORDS, _TOKEN))})\Z")
_TOKEN_NAME: Final = re.compile(rf"{_TOKEN}\Z")
_MODEL_WORD: Final = re.compile(r"(?:\b|_)(?:eos|bos|pad|unk|sep|cls|mask|stop|new|first|last|next|page)_?token\Z")


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    folded = name.lower()
    return _NAME.search(folded) is not None and _MODEL_WORD.search(folded) is None


def _is_secret(name: str, value: JSON) -> bool:
    if value is None or isinstance(value, bool) or value == "" or not _is_secret_name(name):
        return False
    is_count = isinstance(value, int | float) and _TOKEN_NAME.search(name.lower()) is not None
    return not is_count


def _hide_paired(item: JSON) -> JSON:
    """Mask the value of a header that is written as ``["x-api-key", "…"]``."""
    if not isinstance(item, list) or len(item) != 2:
        return item
    name, value = item
    return [name, MASK] if isinstance(name, str) and _is_secret(name, value) else item


def _hide_named(fields: dict[str, JSON]) -> dict[str, JSON]:
    """Mask the value of a header that is written as ``{"name": "x-api-key", "value": "…"}``."""
    if "value" not in fields:
        return fields
    name = fields.get("name", fields.get("key"))
    return {**fields, "value": MASK} if isinstance(name, str) and _is_secret(name, fields["value"]) else fields


class _Secret(NamedTuple):
    """What one kind of secret looks like; the last group that matched is masked, or all if there are none.

    Invariant: linear time. What repeats without bound is possessive and cannot begin again inside itself.
    """

    hints: tuple[str, ...]
    """Plain words, found in next to no time: a text without any of them holds no such secret."""
    pattern: re.Pattern[str]


_QUOTED: Final = r""""((?:[^"\\]|\\.)++)|'((?:[^'\\]|\\.)++)|\\++["']((?:[^"'\\]|\\++[^"'\\])++)"""


def _assigned(names: Iterable[str], bare: str, *hints: str) -> _Secret:
    r"""Return what is assigned to ``names``: ``key=…``, ``key: "…"``, ``{'key': '…'}``, ``{\"key\": \"…``.

    Also the value that comes behind a name, as in ``{"name": "key", "value": "…"}``.
    """
    equals = r"""\\*+["']?+\]?+[ \t]{0,8}+[:=]{1,2}+>?+[ \t]{0,8}+"""
    valued = r"""\\*+["'],\s{0,8}+\\*+["']value\\*+["'][ \t]{0,8}+:[ \t]{0,8}+"""
    return _Secret(hints, re.compile(f"(?:{'|'.join(names)})(?:{equals}|{valued})(?:{_QUOTED}|{bare})", re.DOTALL))


def _paired(names: Iterable[str], *hints: str) -> _Secret:
    """Return what stands beside ``names`` in a pair: ``["key", "…"]``, ``('key', '…')``."""
    begin, end = r"""[\[(]\s{0,8}+\\*+["'][\w.-]{0,40}""", r"""\\*+["']\s{0,8}+[\])]|\\*+["']?+\Z"""
    comma = r"""\\*+["'],\s{0,8}+"""
    return _Secret(hints, re.compile(f"{begin}(?:{'|'.join(names)}){comma}(?:{_QUOTED})(?={end})", re.DOTALL))


# What `re` looks for at full speed is a plain character, so a prefix is found by its last one and looked
# back at. A prefix of two letters must start a word, or stand behind `\n` or `%20` written out.
_SK: Final = r"(?<=sk-)(?:(?<![A-Za-z0-9]sk-)|(?<=\\[nrt]sk-)|(?<=%[0-9A-Fa-f]{2}sk-))"
_DASHED: Final = rf"{_SK}|(?<=xox[a-z]-)|(?<=glpat-)|(?<=pypi-)|(?<=xai-)"
_UNDERSCORED: Final = "|".join(
    f"(?<={prefix}_)"
    for prefix in ("gh[pousr]", "github_pat", "[sr]k_live", "[sr]k_test", "whsec", "hf", "npm", "gsk", "lsv2_[ps][tk]")
)
_JWT_START: Final = r"eyJ(?:(?<![\w-]eyJ)|(?<=\\[nrt]eyJ)|(?<=%[0-9A-Fa-f]{2}eyJ))"
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4}){2,}+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?+"
_KEY_BLOCK: Final = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

_SECRETS: Final = (
    _Secret(("-",), re.compile(rf"-(?:{_DASHED})([\w-]{{8,}}+)")),
    _Secret(("_",), re.compile(rf"_(?:{_UNDERSCORED})([A-Za-z0-9]{{12,}}+[\w-]*+)")),
    _Secret(("IA",), re.compile(r"A(?:KIA|SIA)([A-Z0-9]{12,}+)")),
    _Secret(("AIza", "ya29."), re.compile(r"(?:AIza|ya29\.)([\w-]{20,}+)")),
    _Secret(("eyJ",), re.compile(rf"{_JWT_START}[\w-]{{6,}}+\.[\w-]{{6,}}+(?:\.[\w-]*+){{0,3}}")),
    _Secret(("PRIVATE KEY",), re.compile(rf"-----BEGIN {_KEY_BLOCK}(?s:.*?)(?:-----END {_KEY_BLOCK}|\Z)")),
    _Secret(("://",), re.compile(r"""://[^\s/:@"<>]{0,256}+:(?!\d{1,5}+[/?#])([^\s/"<>]{1,512})@""")),
    _Secret(("earer", "EARER"), re.compile(r"(?:earer|EARER)(?:[ \t]{1,8}+|%20)([\w.~+/=-]{8,}+)")),
    # Not "basic understanding", not "Basic JavaScript": base64 has capitals or digits, and 4, 8, … of them.
    _Secret(("asic ",), re.compile(rf"asic {{1,8}}+(?=[A-Za-z]?[a-z]*+[A-Z0-9+/=])({_BASE64})(?![\w+/=])")),
)

_BARE: Final = r"""[^\s"'&,;<>\\]"""
_NO_NUMBER: Final = r"(?!\d[\d.,]*+(?:[^\w.,]|\Z))"
_NO_PROSE: Final = rf"""(?:(?<=[:=>])|(?<=[_-]token: )|(?={_BARE}{{8}})|(?=[\[({{]\s{{0,8}}+\\*+["'\[({{]))"""
_ROUNDS: Final = 3
_WHOLE_WORDS: Final = [rf"{word}[\w.-]{{0,40}}+" for word in _WORDS]
_WORD_HINTS: Final = ("pass", "pwd", "secret", "cred", "key", "string")
_LAST_WORD_HINTS: Final = ("token", "auth", "pass", "dsn", "jwt")
_NAME_HINTS: Final = (*_WORD_HINTS, *_LAST_WORD_HINTS, "cookie")
# In lower case, which is ten times as fast as `re.IGNORECASE`.
_ASSIGNED: Final = (
    _assigned(("authorization", "cookies?"), r"""([^\r\n"'\\][^\r\n\\]*+)""", "authorization", "cookie"),
    _assigned(_WHOLE_WORDS, f"({_BARE}++)", *_WORD_HINTS),
    _assigned((*_LAST_WORDS, _TOKEN), f"{_NO_NUMBER}{_NO_PROSE}({_BARE}++)", *_LAST_WORD_HINTS),
    _paired((*_WHOLE_WORDS, *_LAST_WORDS, _TOKEN), *_NAME_HINTS),
    # In the query of a URL, where shorter names are secrets too.
    _Secret(("sig", "key"), re.compile(rf"[?&;](?:[a-z-]{{0,24}}signature|sig|key)=({_BARE}++)")),
)


def _mask_secrets(text: str) -> str:
    if len(text) < 16 and text.isalnum():  # "user", "assistant", most tokens of a stream
        return text
    # Again while something was found: what stood behind a secret without a gap begins a word only now.
    for _ in range(_ROUNDS):
        spans = _find_secrets(text)
        if not spans:
            break
        text = _mask_spans(text, spans)
    return text


def _mask_spans(text: str, spans: list[tuple[int, int]]) -> str:
    """Put a mask for each of the ``spans`` that do not overlap, and one for those that do."""
    pieces: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start >= end:
            pieces += [text[end:start], MASK]
        end = max(end, stop)
    return "".join((*pieces, text[end:]))


def _find_secrets(text: str) -> list[tuple[int, int]]:
    """Return where the secrets in ``text`` start and stop (0-based, in characters); they may overlap."""
    found = _find(_SECRETS, text)
    if ":" in text or "=" in text or "," in text:
        found += _widened(text, _find(_ASSIGNED, _fold(text)))
    return found


def _widened(text: str, found: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what was found; of what begins with a bracket, all up to the bracket that closes it."""
    end = 0
    for start, stop in sorted(found):
        if start >= end and text[start] in "[({" and text[start - 1] not in "\"'":
            stop = max(stop, _end_of_structure(text, start))
        end = max(end, stop)
        yield start, stop


_STRUCTURE: Final = re.compile(r"""\\*+["']|[\[\](){}]""")


def _end_of_structure(text: str, start: int) -> int:
    """Return where (0-based) the bracket at ``start`` is closed: behind the last character if it never is.

    A round one that is never closed is a smile.
    """
    depth, quote = 0, ""
    for match in _STRUCTURE.finditer(text, start):
        mark = match[0]
        if mark[-1] not in "\"'":
            depth += 0 if quote else 1 if mark in "[({" else -1
            if depth == 0:
                return match.end()
        elif not quote:
            quote = mark
        elif mark.endswith(quote) and (len(mark) - len(quote)) % (2 * len(quote)) == 0:  # behind backslashes that are text
            quote = ""
    return start if text[start] == "(" else len(text)


def _find(secrets: Iterable[_Secret], text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for hints, pattern in secrets:
        for hint in hints:
            if hint in text:
                found += [match.span(match.lastindex or 0) for match in pattern.finditer(text)]
                break
    return found


def _fold(text: str) -> str:
    """Return ``text`` in lower case, each character where it was: of all, only U+0130 becomes two."""
    folded = text.lower()
    return folded if len(folded) == len(text) else text.replace("\u0130", "i").lower()


_CUT: Final = re.compile(r"(…\[\d+ characters\])")
_WORD_ENDS: Final = " \t\r\n\"'`,;<>(){}[]|"
_HALF: Final = re.compile(rf"-(?:{_DASHED})|_(?:{_UNDERSCORED})|{_JWT_START}|A(?:KIA|SIA|Iza)|ya29\.")
_HALF_LOGIN: Final = re.compile(r"""://[^\s/:@"<>]{0,256}+:[^\s/"<>@]*+\Z""")
_SCHEME: Final = re.compile(rf"(?i)(?:basic|bearer|{_TOKEN}\W{{1,4}})\s*\Z")


def _mask_halved(text: str) -> str:
    """Mask the secrets in what is left of a cut text, and what it ends with if that could be half a one."""
    masked = _mask_secrets(text)
    start = _find_half(masked)
    # Never longer than it was: a limit that cut it again would note the wrong length.
    return (masked if start is None else masked[:start] + MASK)[: len(text)]


def _find_half(text: str) -> int | None:
    """Return where (0-based) a secret begins that ``text`` may end in the middle of, None if nowhere."""
    login = _HALF_LOGIN.search(text, max(0, len(text) - 1024))
    if login:
        return login.start()
    word = 1 + max(map(text.rfind, _WORD_ENDS))
    if _SCHEME.search(text, max(0, word - 16), word):
        return word
    half = _HALF.search(text, word)
    return half.start() if half else None
