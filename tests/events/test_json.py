"""Data that is not text becomes compact JSON, or an error that says what to do."""

from __future__ import annotations

import datetime as dt
import json
from collections import OrderedDict, UserDict, deque
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from math import inf, nan
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import fastapi.sse
import msgspec
import orjson
import pydantic
import pytest
import sse_starlette
from hypothesis import given
from hypothesis import strategies as st

from starlette_sse.events import JSONServerSentEvent, ServerSentEvent, as_event
from starlette_sse.exceptions import InvalidEventError

NOON = dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class OldWord(str, Enum):  # noqa: UP042 - its str() is not its value, unlike a StrEnum's
    NO = "no"


class Pair(NamedTuple):
    x: int
    y: int


@dataclass
class Point:
    x: int
    at: dt.datetime = NOON
    near: list[Point] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Slotted:
    x: int


@attrs.define
class Crate:
    x: int
    colour: Colour = Colour.RED


class Struct(msgspec.Struct, rename="camel"):
    first_name: str


class Model(pydantic.BaseModel):
    x: int
    at: dt.datetime = NOON
    site: pydantic.HttpUrl = pydantic.HttpUrl("http://example.org/")
    ratio: float = 1.0


class Roots(pydantic.RootModel[list[int]]):
    pass


MODEL = '{"x":1,"at":"2026-01-02T12:00:00Z","site":"http://example.org/","ratio":1.0}'
POINT = '{"x":1,"at":"2026-01-02T12:00:00+00:00","near":[{"x":2,"at":"2026-01-02T12:00:00+00:00","near":[]}]}'
FORMS = [
    (1, "1"),
    (0, "0"),
    (1.5, "1.5"),
    (True, "true"),
    (False, "false"),
    ([], "[]"),
    ({"a": [1, None, "é…"]}, '{"a":[1,null,"é…"]}'),
    ({1: "x", None: True}, '{"1":"x","null":true}'),
    ("a\nb", "a\nb"),
    (["a\nb"], '["a\\nb"]'),
    ((1, (2,)), "[1,[2]]"),
    (Pair(1, 2), "[1,2]"),
    ({3}, "[3]"),
    (frozenset(), "[]"),
    (deque([1]), "[1]"),
    (range(3), "[0,1,2]"),
    (OrderedDict(a=1), '{"a":1}'),
    (UserDict(a={2}), '{"a":[2]}'),
    (MappingProxyType({"a": 1}), '{"a":1}'),
    ({"a": 1}.keys(), '["a"]'),
    (NOON, '"2026-01-02T12:00:00+00:00"'),
    (NOON.date(), '"2026-01-02"'),
    (NOON.time(), '"12:00:00"'),
    (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Decimal("0.10"), '"0.10"'),
    (Colour.RED, '"red"'),
    (Colour.PAIR, "[1,2]"),
    (Level.LOW, "1"),
    (Word.YES, "yes"),
    (OldWord.NO, "no"),
    ([Level.LOW, Word.YES, OldWord.NO], '[1,"yes","no"]'),
    (Point(1, near=[Point(2)]), POINT),
    (Slotted(1), '{"x":1}'),
    (Crate(1), '{"x":1,"colour":"red"}'),
    (Struct("Ann"), '{"firstName":"Ann"}'),
    (Model(x=1), MODEL),
    ({"models": [Model(x=1)]}, '{"models":[' + MODEL + "]}"),
    (Roots([1, 2]), "[1,2]"),
]


@pytest.mark.parametrize(("value", "text"), [pytest.param(*row, id=type(row[0]).__name__) for row in FORMS])
def test_a_value_has_this_json_form(value: Any, text: str) -> None:
    """Text stays as it is; all else is compact JSON, whose letters are not escaped."""
    assert ServerSentEvent(value).data == text
    assert ServerSentEvent(data=value).encode().startswith(b"data: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(json_values.filter(lambda value: value is not None and not isinstance(value, str)))
def test_any_json_value_comes_back(value: Any) -> None:
    """What the client parses is what was given."""
    text = ServerSentEvent(value).data
    assert text is not None
    assert json.loads(text) == value
    assert "\n" not in text


class Opaque:
    pass


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
NO_FORM = {
    "bytes": (b"x", "bytes is not text"),
    "bytearray": (bytearray(b"x"), "bytearray is not text"),
    "memoryview": (memoryview(b"x"), "memoryview is not text"),
    "bytes within": ({"a": [b"x"]}, "bytes is not text"),
    "an object": (Opaque(), "Opaque has no JSON form"),
    "an object within": ([Opaque()], "Opaque has no JSON form"),
    "a class": (Model, "has no JSON form"),
    "a dataclass itself": (Point, "type has no JSON form"),
    "a function": (repr, "builtin_function_or_method has no JSON form"),
    "a generator": ((letter for letter in "x"), "generator has no JSON form"),
    "a time span": (dt.timedelta(1), "timedelta has no JSON form"),
    "NaN": (nan, "not JSON compliant"),
    "infinity": ([inf], "not JSON compliant"),
    "NaN as key": ({nan: 1}, "not JSON compliant"),
    "NaN in a model": (Model(x=1, ratio=nan), "not JSON compliant"),
    "a key that is no text": ({(1, 2): 3}, "keys must be"),
    "itself within": (LOOP, "Circular reference"),
    "too deep": (DEEP, "recursion|Stack overflow"),
}


@pytest.mark.parametrize(("value", "why"), [pytest.param(*row, id=name) for name, row in NO_FORM.items()])
def test_a_value_without_a_json_form_is_refused(value: Any, why: str) -> None:
    """No repr is ever sent; the error names the type, the reason and the remedy, when the event is made."""
    says = f"data of type {type(value).__name__} cannot become JSON: .*{why}.*; "
    remedy = r"give a str, such as str\(value\), or convert .* or override dumps in a subclass of ServerSentEvent"
    with pytest.raises(InvalidEventError, match=says + remedy):
        ServerSentEvent(value)


async def forgotten() -> None: ...


def test_what_has_to_be_awaited_first_is_told() -> None:
    """A forgotten ``await`` is the mistake, and not the missing JSON form; nothing is left to warn of."""
    with pytest.raises(
        InvalidEventError, match="data of type coroutine cannot become JSON: it has to be awaited first"
    ):
        ServerSentEvent(forgotten())


def test_an_event_of_another_library_is_told() -> None:
    """Who moves over and leaves one import behind."""
    remedy = r"data is an event of the module sse_starlette.event; import ServerSentEvent from starlette_sse"
    with pytest.raises(InvalidEventError, match=remedy):
        as_event(sse_starlette.ServerSentEvent("x"))


class Orjson(ServerSentEvent):
    @staticmethod
    def dumps(value: Any) -> bytes:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)


class Msgspec(JSONServerSentEvent):
    encoder = msgspec.json.Encoder()

    @classmethod
    def dumps(cls, value: Any) -> bytes:
        return cls.encoder.encode(value)


class Broken(ServerSentEvent):
    result: Any = None

    def dumps(self, value: Any) -> Any:  # type: ignore[override]  # an instance's method does too
        return self.result


def test_the_encoder_is_swapped_in_one_place() -> None:
    """A subclass with its own ``dumps``, of text or bytes, also makes the events of what a stream yields."""
    assert Orjson({"a": 1}).encode() == b'data: {\r\ndata:   "a": 1\r\ndata: }\r\n\r\n'
    assert as_event({"data": {"a": 1}, "id": "7"}, Orjson) == Orjson({"a": 1}, id="7")
    assert as_event([1], Orjson).data == "[\n  1\n]"
    assert Orjson("as it is").data == "as it is"
    assert Msgspec("é").data == '"é"'


@pytest.mark.parametrize("event_class", [ServerSentEvent, Msgspec, JSONServerSentEvent])
@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_json_is_one_line_for_who_splits_text_as_python_does(
    event_class: type[ServerSentEvent], character: str
) -> None:
    """So httpx's iter_lines() does; the client parses the same."""
    value = [f"one{character}two", {character: "é"}]
    text = event_class(value).data
    assert text is not None
    assert text.splitlines() == [text]
    assert json.loads(text) == value
    assert "é" in text


def test_text_that_is_given_as_such_is_not_json() -> None:
    """It is sent as it is."""
    assert ServerSentEvent("a\u2028b").data == "a\u2028b"


@pytest.mark.parametrize("value", [Opaque(), b"x"])
def test_an_error_of_another_encoder_is_mapped(value: Any) -> None:
    """The remedy is the same whoever found that there is no JSON form."""
    with pytest.raises(InvalidEventError, match=r"cannot become JSON: .*subclass of Orjson") as error:
        Orjson(value)
    assert isinstance(error.value.__cause__, orjson.JSONEncodeError)


@pytest.mark.parametrize("result", [None, 1, b"\xff"])
def test_an_encoder_that_gives_no_text_is_refused(result: Any) -> None:
    """It must return ``str``, or bytes in UTF-8; the data is not at fault."""
    Broken.result = result
    told = rf"^Broken.dumps must return a str, or bytes in UTF-8; not {type(result).__name__}: "
    with pytest.raises(InvalidEventError, match=told):
        Broken([])


class Forgetful(ServerSentEvent):
    def dumps(value: Any) -> str:  # type: ignore[override]  # @staticmethod is missing
        return repr(value)


class Reused(ServerSentEvent):
    dumps = json.dumps  # type: ignore[assignment]  # staticmethod() is missing


@pytest.mark.parametrize("event_class", [Forgetful, Reused])
def test_an_encoder_that_is_no_static_method_is_told(event_class: type[ServerSentEvent]) -> None:
    """The data is not at fault."""
    told = rf"^{event_class.__name__}.dumps must take the value alone: .*; is its @staticmethod missing\?$"
    with pytest.raises(InvalidEventError, match=told):
        event_class([])


def test_an_error_of_an_encoder_that_does_not_tell_its_parameters_is_the_datas() -> None:
    """As of many that are written in C."""

    class Typed(ServerSentEvent):
        dumps = staticmethod(min)  # type: ignore[assignment]  # it has no signature

    with pytest.raises(InvalidEventError, match="data of type int cannot become JSON: 'int' object is not iterable"):
        Typed(3)


def test_a_json_event_quotes_text_too() -> None:
    """As in sse-starlette; None is still no data."""
    assert JSONServerSentEvent("x\ny", event="tick").encode() == b'event: tick\r\ndata: "x\\ny"\r\n\r\n'
    assert JSONServerSentEvent("").data == '""'
    assert JSONServerSentEvent({"a": 1}) == ServerSentEvent({"a": 1})
    assert JSONServerSentEvent(None, comment="c").encode() == b": c\r\n\r\n"
    with pytest.raises(InvalidEventError, match="an event needs data"):
        JSONServerSentEvent()


def test_an_event_of_another_library_that_is_a_model_is_told_too() -> None:
    """It would become JSON, and clients would get its fields as the data of an event without a name."""
    with pytest.raises(InvalidEventError, match=r"data is an event of the module fastapi.sse; import ServerSentEvent"):
        ServerSentEvent(fastapi.sse.ServerSentEvent(data={"a": 1}, event="tick"))


def test_a_list_of_events_is_told() -> None:
    """They are to be yielded one by one."""
    for batch in ([ServerSentEvent("a")], (ServerSentEvent("a"), "b")):
        with pytest.raises(InvalidEventError, match="it holds events; yield them one by one"):
            ServerSentEvent(batch)
