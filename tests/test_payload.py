"""What may leave the process, whatever the app holds: nothing raises, is disturbed or takes for ever."""

import asyncio
import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import ipaddress
import json
import math
import pathlib
import re
import socket
import sys
import threading
import types
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebus import payload
from tracebus.payload import (
    DEFAULT_LIMITS,
    JSON,
    Limits,
    captures_inputs,
    captures_outputs,
    default_capture,
    encode,
    preview,
    printable,
    sanitize,
    snapshot,
    text_of,
)
from tracebus.redaction import MASK, Redactor

KIB = 1024
HERE = __name__


def strictly(data: bytes) -> Any:
    """Parse JSON as the standard has it: no NaN, no Infinity, UTF-8."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def leaves(value: JSON) -> Iterator[JSON]:
    """Yield every value in ``value``, containers and keys too."""
    yield value
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


# --- any value

texts = st.text(st.characters(exclude_categories=()), max_size=40)
numbers = st.integers(-(2**80), 2**80) | st.floats() | st.booleans() | st.none()
keys = texts | st.integers() | st.floats() | st.none() | st.tuples(st.integers(), texts) | st.binary(max_size=4)
values = st.recursive(
    texts | numbers | st.binary(max_size=9) | st.sets(texts) | st.dates() | st.uuids() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=30,
)
large = st.tuples(values, st.sampled_from(["a", "é", "👋", '"', "\0", "\ud800", "pwd=x "]), st.integers(0, 100_000)).map(
    lambda parts: [parts[0], parts[1] * parts[2], {parts[1] * parts[2]: parts[0]}] * 5
)


@given(values)
def test_any_value_encodes_to_strict_json_in_utf_8(value: object) -> None:
    strictly(encode(value))


@given(values)
def test_any_value_sanitizes_to_what_json_gives_back(value: object) -> None:
    sanitized = sanitize(value)
    assert strictly(encode(sanitized)) == sanitized


@given(large)
def test_any_value_is_stored_in_64_kib(value: object) -> None:
    assert len(encode(sanitize(value))) <= 64 * KIB


@given(values)
def test_a_snapshot_holds_nothing_but_builtin_types(value: object) -> None:
    assert {type(leaf) for leaf in leaves(snapshot(value))} <= {dict, list, str, int, float, bool, type(None)}


@given(values)
def test_a_snapshot_of_a_snapshot_is_the_same(value: object) -> None:
    copied = snapshot(value)
    assert snapshot(copied) == copied


@given(values)
def test_sanitizing_twice_changes_nothing(value: object) -> None:
    sanitized = sanitize(value)
    assert sanitize(sanitized) == sanitized


# --- what stays as it is


@pytest.mark.parametrize("value", ["text", "ünïcode 👋", "", 0, -(2**63), 2**63 - 1, 1.5, True, None])
def test_a_plain_value_is_returned_as_it_is(value: object) -> None:
    assert snapshot(value) is value


def test_messages_are_copied() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "n": 1}]
    assert snapshot(messages) == messages


def test_a_snapshot_does_not_change_with_the_value() -> None:
    messages = [{"role": "user", "content": [{"text": "hi"}]}, {"role": "user", "content": "hi"}]
    copied = snapshot(messages)
    messages[0]["content"].append("more")
    messages[1]["content"] = "changed"
    messages.append({})
    assert copied == [{"role": "user", "content": [{"text": "hi"}]}, {"role": "user", "content": "hi"}]


def test_a_snapshot_does_not_mask() -> None:
    assert snapshot({"password": "hunter2"}) == {"password": "hunter2"}


# --- what is too much


def test_a_text_of_100_mb_keeps_its_beginning_and_its_length() -> None:
    copied = snapshot("x" * 100_000_000)
    assert copied == "x" * (32 * KIB - len("…[100000000 characters]")) + "…[100000000 characters]"


@pytest.mark.parametrize("letter", ["é", "👋", "\0", '"', "\ud800"])
def test_a_text_that_grows_in_json_is_cut_shorter(letter: str) -> None:
    copied = snapshot(letter * 10_000_000)
    assert copied.endswith("…[10000000 characters]")
    assert len(encode(copied)) <= 60 * KIB


def test_a_subclass_of_str_is_cut_without_asking_it() -> None:
    class Liar(str):
        def __len__(self) -> int:
            raise SystemExit

        __getitem__ = __str__ = __len__

    assert snapshot(Liar("x" * 100_000)).endswith("…[100000 characters]")


def test_a_long_list_ends_with_the_number_of_its_items() -> None:
    copied = snapshot(list(range(10_000_000)))
    assert copied == [*range(199), "…[10000000 items]"]


def test_a_large_dict_ends_with_the_number_of_its_items() -> None:
    copied = snapshot(dict.fromkeys(range(1_000_000)))
    assert copied == {**{str(key): None for key in range(199)}, "…": "[1000000 items]"}


def test_a_key_named_like_the_note_of_a_cut_is_kept() -> None:
    copied = snapshot({"…": 1, "a": 2, "b": 3}, Limits(items=2))
    assert copied == {"…": 1, "… (2)": "[3 items]"}


def test_a_container_too_deep_says_what_it_is() -> None:
    assert snapshot([[{"a": 1, "b": 2}]], Limits(depth=2)) == [["…[dict of 2 items]"]]


def test_100_000_containers_inside_one_another_are_12() -> None:
    copied = nested(100_000)
    assert encode(snapshot(copied)).decode() == "[" * 12 + '"…[list of 1 items]"' + "]" * 12


def test_a_value_inside_itself_is_a_cycle() -> None:
    value: dict[str, Any] = {"n": 1}
    value["items"] = [value, value]
    assert snapshot(value) == {"n": 1, "items": ["[cycle]", "[cycle]"]}


def test_a_value_twice_beside_itself_is_no_cycle() -> None:
    shared = [1]
    assert snapshot([shared, shared]) == [[1], [1]]


def test_an_object_inside_itself_is_a_cycle() -> None:
    node = types.SimpleNamespace(value=1)
    node.next = node
    assert snapshot(node) == {"value": 1, "next": "[cycle]"}


@pytest.mark.parametrize("leaf", ["", 0, [], (), {}, types.SimpleNamespace(), object(), ValueError()])
def test_the_number_of_values_is_bounded_not_only_of_each_container(leaf: object) -> None:
    copied = snapshot([[[leaf] * 200] * 200] * 200)
    assert sum(1 for _ in leaves(copied)) < 10_000


def test_a_long_key_is_cut() -> None:
    (key,) = snapshot({"k" * 1_000_000: 1})
    assert key.endswith("…[1000000 characters]")
    assert len(key) == 256


def test_the_limits_can_be_given() -> None:
    assert snapshot("abcdefghijklmnopqrstuvwxyz", Limits(characters=20)) == "abcd…[26 characters]"


def test_a_collection_of_the_app_is_read_no_further_than_the_limit() -> None:
    read = []

    class Endless(collections.abc.Sequence):
        __slots__ = ()

        def __len__(self) -> int:
            return sys.maxsize

        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return index

    assert len(snapshot(Endless())) == 200
    assert len(read) <= 200


# --- numbers and texts that JSON cannot say


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (10**600, "1" + "0" * 600),
        ("a\ud800b", "a\\ud800b"),
        (b"abc", "[bytes of 3 bytes]"),
        (bytearray(5), "[bytes of 5 bytes]"),
        (memoryview(b"1234").cast("i"), "[bytes of 4 bytes]"),
        (1 + 2j, "(1+2j)"),
        (range(3), "range(0, 3)"),
        (re.compile("a+"), "re.compile('a+')"),
        (decimal.Decimal("1.50"), "1.50"),
        (decimal.Decimal(10) ** 27 + 1, "1000000000000000000000000001"),
        (fractions.Fraction(1, 3), "1/3"),
        (datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), "2024-02-29T12:00:00+00:00"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(days=1), "1 day, 0:00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (ipaddress.ip_address("::1"), "::1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    ],
)
def test_a_value_has_its_usual_text(value: object, said: str) -> None:
    assert snapshot(value) == said


def test_a_number_of_5000_digits_is_not_spelt_out() -> None:
    values = [10**5000, fractions.Fraction(1, 10**5000)]
    assert snapshot(values) == ["[integer of 16610 bits]", "[fraction of 16611 bits]"]


def test_a_decimal_of_a_million_digits_is_not_spelt_out() -> None:
    assert re.fullmatch(r"\[decimal of \d+ bytes\]", text_of(decimal.Decimal("1" * 1_000_000)))


class Colour(enum.Enum):
    RED = "red"
    BLUE = object()


class Level(enum.IntEnum):
    HIGH = 3


class Mode(enum.StrEnum):
    FAST = "fast"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@pytest.mark.parametrize(
    ("member", "said"),
    [(Colour.RED, "red"), (Colour.BLUE, "BLUE"), (Level.HIGH, 3), (Mode.FAST, "fast"), (Access.READ | Access.WRITE, 3)],
)
def test_a_member_of_an_enum_is_its_value_or_its_name(member: object, said: object) -> None:
    assert snapshot(member) == said


def test_subclasses_of_builtin_types_are_read_without_their_overrides() -> None:
    def fail(*args: object) -> Any:
        raise SystemExit

    overrides = dict.fromkeys(
        "__str__ __repr__ __iter__ __len__ __int__ __float__ __getitem__ __eq__ items keys values".split(),
        fail,
    )
    samples = ["text", 5, 1.5, [1, 2], (1, 2), {"a": 1}, frozenset([1]), {1}, collections.deque([1])]
    made = [type("Sub", (type(sample),), {**overrides, "__hash__": None})(sample) for sample in samples]
    assert snapshot(made) == ["text", 5, 1.5, [1, 2], [1, 2], {"a": 1}, [1], [1], [1]]


# --- containers


def test_keys_become_texts_and_none_is_lost() -> None:
    value = {1: "a", "1": "b", None: "c", (1, "x"): "d", 1.5: "e", b"x": "f", b"y": "g", Colour.RED: "h", False: "i"}
    assert snapshot(value) == {
        "1": "a",
        "1 (2)": "b",
        "null": "c",
        '[1,"x"]': "d",
        "1.5": "e",
        "[bytes of 1 bytes]": "f",
        "[bytes of 1 bytes] (7)": "g",
        "red": "h",
        "false": "i",
    }


def test_a_set_of_texts_is_in_order() -> None:
    assert snapshot({"b", "c", "a"}) == ["a", "b", "c"]


def test_a_named_tuple_is_a_dict() -> None:
    point = collections.namedtuple("point", "x y")
    assert snapshot(point(1, 2)) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "mapping",
    [
        collections.OrderedDict(a=1),
        collections.Counter(a=1),
        collections.defaultdict(int, a=1),
        collections.ChainMap({"a": 1}),
        types.MappingProxyType({"a": 1}),
    ],
    ids=lambda mapping: type(mapping).__name__,
)
def test_a_mapping_is_a_dict(mapping: object) -> None:
    assert snapshot(mapping) == {"a": 1}


def test_the_views_of_a_dict_are_lists() -> None:
    value = {"a": 1}
    assert snapshot([value.keys(), value.values(), value.items()]) == [["a"], [1], [["a", 1]]]


def test_a_mapping_of_the_app_that_raises_is_a_placeholder() -> None:
    class Broken(collections.abc.Mapping):
        def __getitem__(self, key: object) -> None:
            raise SystemExit

        __iter__ = __len__ = __getitem__

    assert snapshot([Broken(), 1]) == [f"<unprintable {HERE}.{Broken.__qualname__}>", 1]


@pytest.mark.parametrize("size", [3, 100])
def test_a_dict_that_another_thread_changes_is_copied_whole(size: int) -> None:
    shared: dict[str, Any] = {str(n): n for n in range(size)}
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for n in range(50):
                shared[f"new {n}"] = n
            for n in range(50):
                del shared[f"new {n}"]

    thread = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        copies = [snapshot(shared) for _ in range(1000)]
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert all(copied.items() >= {str(n): n for n in range(size)}.items() for copied in copies)


# --- objects


@dataclasses.dataclass
class Plain:
    city: str
    _hidden: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    city: str
    _hidden: int = 0


@attrs.define
class Attrs:
    city: str


@attrs.define(slots=False)
class AttrsWithDict:
    city: str


class Struct(msgspec.Struct):
    city: str


class Model(pydantic.BaseModel):
    city: str


class OpenModel(pydantic.BaseModel, extra="allow"):
    pass


class Bare:
    def __init__(self, city: str) -> None:
        self.city = city
        self._hidden = 0


@pytest.mark.parametrize("kind", [Plain, Slotted, Attrs, AttrsWithDict, Struct, Model, OpenModel, Bare])
def test_an_object_is_a_dict_of_its_public_fields(kind: Any) -> None:
    assert snapshot(kind(city="Oslo")) == {"city": "Oslo"}


def test_the_slots_of_the_bases_come_first() -> None:
    class Base:
        __slots__ = ("first", "unset")

    class Derived(Base):
        __slots__ = ("second",)

    made = Derived()
    made.second, made.first = 2, 1
    assert list(snapshot(made).items()) == [("first", 1), ("second", 2)]


def test_an_object_of_a_million_fields_is_cut() -> None:
    wide = types.SimpleNamespace(**{f"f{n}": n for n in range(1_000_000)})
    copied = snapshot(wide)
    assert len(copied) == 200
    assert copied["…"] == "[1000000 items]"


def test_no_code_of_an_object_with_fields_is_run() -> None:
    ran = []

    class Watched:
        def __init__(self) -> None:
            self.city = "Oslo"

        def __repr__(self) -> str:
            ran.append("repr")
            threading.Event().wait()
            return ""

        @property
        def lazy(self) -> str:
            ran.append("property")
            return ""

        def __getattr__(self, name: str) -> str:
            ran.append(name)
            return ""

        __str__ = __repr__
        __iter__ = __len__ = __eq__ = __hash__ = __bool__ = __repr__

    assert snapshot(Watched()) == {"city": "Oslo"}
    assert ran == []


@pytest.mark.parametrize("error", [ValueError, SystemExit, RecursionError, asyncio.CancelledError, GeneratorExit])
def test_an_object_whose_repr_raises_is_a_placeholder(error: type[BaseException]) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise error

    assert snapshot([Broken(), 1]) == [f"<unprintable {HERE}.{Broken.__qualname__}>", 1]


def test_a_keyboard_interrupt_is_the_users_and_goes_on() -> None:
    class Interrupted:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot(Interrupted())


def test_a_repr_is_bounded() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 1_000_000

    assert snapshot(Long()).endswith("…[1000000 characters]")


def test_an_object_that_lies_about_everything_is_a_placeholder() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise SystemExit

        def __repr__(self) -> str:
            raise SystemExit

        __class__ = __dict__ = property(__repr__)

    assert encode([Hostile()]) == encode([f"<unprintable {HERE}.{Hostile.__qualname__}>"])


def test_a_class_that_lies_about_itself_is_named() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise SystemExit

        __instancecheck__ = __subclasscheck__ = __getattribute__

    class Lying(metaclass=Meta):
        pass

    name = type.__dict__["__qualname__"].__get__(Lying)
    assert snapshot([Lying, Lying()]) == [f"<class {HERE}.{name}>", f"<{HERE}.{name}>"]


def test_a_class_without_a_hash_spoils_only_its_own_values() -> None:
    meta = type("Meta", (type,), {"__hash__": None})
    strange = meta("Strange", (), {})()
    assert snapshot([strange, 1]) == [f"<unprintable {HERE}.Strange>", 1]


@pytest.mark.parametrize("kind", [mock.Mock, mock.MagicMock, mock.AsyncMock])
def test_a_mock_is_named_and_not_asked(kind: Any) -> None:
    made = kind()
    assert snapshot([made, made.child]) == [f"<unittest.mock.{kind.__name__}>"] * 2
    assert made.mock_calls == []


def test_secret_types_are_masked_also_in_a_snapshot() -> None:
    class SecretThing:
        def __init__(self) -> None:
            self.value = "canary"

    class ApiKey(pydantic.SecretStr):
        pass

    found = [pydantic.SecretStr("canary"), pydantic.SecretBytes(b"canary"), ApiKey("canary"), SecretThing()]
    assert snapshot(found) == [MASK] * 4


def test_an_exception_named_secret_is_still_an_exception() -> None:
    class SecretNotFoundError(Exception):
        pass

    assert snapshot(SecretNotFoundError("db"))["message"] == "db"


# --- exceptions


class OddError(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no"), "ValueError", "no"),
        (ValueError(), "ValueError", ""),
        (ValueError(1, "b"), "ValueError", "(1, 'b')"),
        (KeyError("k"), "KeyError", "'k'"),
        (FileNotFoundError(2, "no such file"), "FileNotFoundError", "[Errno 2] no such file"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError", ""),
        (ExceptionGroup("several", [ValueError()]), "ExceptionGroup", "several (1 sub-exception)"),
        (OddError("x"), f"{HERE}.OddError", f"<unprintable {HERE}.OddError>"),
    ],
)
def test_an_exception_is_its_type_and_its_message(error: BaseException, kind: str, message: str) -> None:
    assert snapshot(error) == {"type": kind, "message": message}


def test_an_exception_does_not_spell_out_its_large_argument() -> None:
    class Loud(list):
        def __repr__(self) -> str:
            raise AssertionError("asked")

    message = snapshot(ValueError(Loud(range(1_000_000))))["message"]
    assert message.endswith('"…[1000000 items]"]')


# --- what is not data


def a_function() -> None:
    """Do nothing."""


def a_generator() -> Iterator[int]:
    yield 1
    yield 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (a_function, f"<function {HERE}.a_function>"),
        (len, "<function builtins.len>"),
        ([].append, "<function list.append>"),
        (Bare("Oslo").__init__, f"<method {HERE}.Bare.__init__>"),
        (Bare, f"<class {HERE}.Bare>"),
        (dict, "<class dict>"),
        (json, "<module json>"),
        (object(), "<object>"),
        (threading.Lock(), "<_thread.lock>"),
        (io.StringIO("text"), "<_io.StringIO>"),
        (iter([1]), "<list_iterator>"),
        (iter({}.items()), "<dict_itemiterator>"),
        (map(str, [1]), "<map>"),
    ],
)
def test_what_is_not_data_is_named(value: object, said: str) -> None:
    assert snapshot(value) == said


def test_a_socket_is_named() -> None:
    with socket.socket() as opened:
        assert snapshot(opened) == "<socket.socket>"


def test_a_generator_is_named_and_not_advanced() -> None:
    generator = a_generator()
    assert sanitize([generator]) == ["<generator a_generator>"]
    assert list(generator) == [1, 2]


def test_an_iterator_of_the_app_is_named_and_not_advanced() -> None:
    class Countdown:
        def __init__(self) -> None:
            self.left = 3

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            self.left -= 1
            return self.left

    countdown = Countdown()
    assert snapshot(countdown) == f"<{HERE}.{Countdown.__qualname__}>"
    assert countdown.left == 3


def test_a_file_is_named_and_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        assert snapshot(file) == "<_io.TextIOWrapper>"
        assert file.read() == "one\ntwo\n"


def test_coroutines_and_async_generators_are_named() -> None:
    async def coroutine() -> None:
        pass

    async def stream() -> Any:
        yield 1

    made = coroutine()
    assert snapshot([made, stream()]) == [
        f"<coroutine {coroutine.__qualname__}>",
        f"<async_generator {stream.__qualname__}>",
    ]
    made.close()


def test_an_array_is_its_shape_and_type() -> None:
    class Tensor:
        shape = property(lambda self: (3, 4))
        dtype = property(lambda self: "torch.float32")

        def __repr__(self) -> str:
            raise AssertionError("asked")

    Tensor.__module__, Tensor.__qualname__ = "torch._tensor", "Tensor"
    assert snapshot(Tensor()) == "<torch.Tensor shape=(3, 4) dtype=torch.float32>"


def test_arrays_of_numpy_are_described_and_its_numbers_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    values = [
        numpy.zeros((3, 4), "float32"),
        numpy.float32(1.5),
        numpy.int64(3),
        numpy.bool_(True),
        numpy.float64("nan"),
    ]
    assert snapshot(values) == ["<numpy.ndarray shape=(3, 4) dtype=float32>", 1.5, 3, True, "NaN"]


def test_a_snapshot_without_stack_left_does_not_raise() -> None:
    def descend() -> JSON:
        try:
            return descend()
        except RecursionError:
            return sanitize({"messages": [{"content": "hi"}]})

    assert encode(descend())


# --- masking, see test_redaction


def test_a_snapshot_is_masked_by_its_keys_and_its_texts() -> None:
    value = {"api_key": "canary", "text": "password=canary", "n": 1}
    assert sanitize(value) == {"api_key": MASK, "text": f"password={MASK}", "n": 1}


def test_the_fields_of_objects_and_the_texts_of_exceptions_are_masked() -> None:
    value = [types.SimpleNamespace(password="canary"), ValueError("bad key sk-canarycanary123")]
    assert sanitize(value) == [{"password": MASK}, {"type": "ValueError", "message": f"bad key sk-{MASK}"}]


def test_masks_do_not_make_a_value_longer_than_its_limit() -> None:
    sanitized = sanitize(["pwd=x " * 5000] * 3)
    assert len(encode(sanitized)) <= 64 * KIB


def test_a_cut_text_keeps_its_length_when_masks_lengthen_it() -> None:
    assert str(sanitize("pwd=x " * 1_000_000)).endswith("…[6000000 characters]")


def test_what_a_rule_returns_is_sanitized_too() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise SystemExit

    returned = [math.nan, Broken(), nested(1000), "x" * 1_000_000]
    sanitized = sanitize("text", Redactor(lambda path, value: returned))
    assert strictly(encode(sanitized)) == sanitized
    assert len(encode(sanitized)) <= 64 * KIB


# --- bytes and texts


def test_encoding_is_compact() -> None:
    assert encode({"a": [1, "é", None]}) == '{"a":[1,"é",null]}'.encode()


@pytest.mark.parametrize("value", [{(1, 2): 3}, "\ud800", nested(100_000), object(), {"a": {1, 2}}])
def test_what_cannot_be_encoded_is_sanitized_first(value: object) -> None:
    assert strictly(encode(value)) == sanitize(value)


def test_a_text_is_its_own_text() -> None:
    assert text_of('say "hi"\n') == 'say "hi"\n'


def test_any_other_value_has_json_for_its_text() -> None:
    assert text_of({"city": "Oslo", "days": (1, 2), "unit": None}) == '{"city":"Oslo","days":[1,2],"unit":null}'


def test_the_text_of_a_large_value_is_bounded() -> None:
    assert len(text_of(["x" * 100_000] * 100)) <= 64 * KIB


@pytest.mark.parametrize(
    ("value", "width", "shown"),
    [
        ("short", 10, "short"),
        ("exactly", 7, "exactly"),
        ("much longer", 7, "much l…"),
        ("x" * 1_000_000, 5, "xxxx…"),
        ("two\nlines\x1b[0m", 40, r"two\nlines\x1b[0m"),
        ({"a": [1, "b"]}, 40, '{"a":[1,"b"]}'),
        (None, 40, "null"),
        ("any", 1, "…"),
        ("any", 0, ""),
        ("password=canary", 40, f"password={MASK}"),
    ],
)
def test_a_preview_is_one_line_of_a_width(value: object, width: int, shown: str) -> None:
    assert preview(value, width) == shown


@given(values, st.integers(0, 100))
def test_no_preview_is_wider_than_asked(value: object, width: int) -> None:
    shown = preview(value, width)
    assert len(shown) <= width
    assert printable(shown) == shown


CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]


@pytest.mark.parametrize("code", [*CONTROLS, 0xD800, 0xDFFF], ids=hex)
def test_controls_are_escaped(code: int) -> None:
    shown = printable(f"a{chr(code)}b")
    assert shown == f"a{chr(code).encode('unicode_escape').decode()}b"
    assert shown.isascii()


def test_printable_text_stays_as_it_is() -> None:
    assert printable("Grüße, 世界 👩‍🚀 — a\u00a0b") == "Grüße, 世界 👩‍🚀 — a\u00a0b"


# --- the switch


def test_all_content_is_captured_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEBUS_CAPTURE", raising=False)
    assert default_capture() == "all"


@pytest.mark.parametrize(("given", "meant"), [("none", "none"), ("Inputs", "inputs"), (" OUTPUTS ", "outputs"), ("", "all")])
def test_the_environment_says_what_is_captured(given: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEBUS_CAPTURE", given)
    assert default_capture() == meant


def test_an_unknown_word_for_what_is_captured_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEBUS_CAPTURE", "some")
    with pytest.raises(ValueError, match="unknown TRACEBUS_CAPTURE 'some': set it to one of none, inputs, outputs, all"):
        default_capture()


def test_each_word_captures_what_it_says() -> None:
    words = ("none", "inputs", "outputs", "all")
    assert [captures_inputs(word) for word in words] == [False, True, False, True]
    assert [captures_outputs(word) for word in words] == [False, False, True, True]


def test_every_public_name_exists() -> None:
    assert all(hasattr(payload, name) for name in payload.__all__)
    assert Limits() == DEFAULT_LIMITS
