import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest
from service.http.json_outline import LONG, MAX_OUTLINE, MAX_TOKENS, PIECE, count_of, outline_of


def restored(body: bytes) -> object:
    """The JSON with its long values put back."""
    outline = outline_of(body)

    def put_back(value: object) -> object:
        match value:
            case str() if value in outline.long:
                long = outline.long[value]
                is_list = body[long.start : long.start + 1] == b"["
                return json.loads(body[long.start : long.end]) if is_list else long.text().decode()
            case dict():
                return {key: put_back(each) for key, each in value.items()}
            case list():
                return [put_back(each) for each in value]
        return value

    return put_back(json.loads(outline.json))


short = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
long_text = st.sampled_from('aZ+/=\\"').map(lambda each: each * (LONG + 1))
numbers = st.integers(-9, 9).map(lambda each: [each] * LONG) | st.just([[1, 2], [3, 4]] * LONG)
values = st.recursive(
    short | long_text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner | numbers)
    ),
    max_leaves=6,
)


@given(values, st.sampled_from([None, 1]))
def test_nothing_is_lost_and_what_remains_is_small(value, indent):
    body = json.dumps({"a": value}, indent=indent).encode()
    try:
        assert restored(body) == {"a": value}
    except BadRequest as exc:
        assert "besides the long values" in str(exc) or "more than" in str(exc)  # noqa: PT017
    else:
        assert len(outline_of(body).json) <= MAX_OUTLINE + 10_000


@pytest.mark.parametrize("escape", ["\\/", "\\u002b", "\\u002B"])
def test_a_text_with_the_escapes_of_other_languages_is_read(escape):
    """PHP escapes each slash, .NET each plus; both may be where a piece ends."""
    for shift in range(8):
        plain = "a" * shift + json.loads(f'"{escape}"') * PIECE
        body = b'{"a": "%b"}' % ("a" * shift + escape * PIECE).encode()
        assert restored(body) == {"a": plain}


def test_a_long_text_that_is_not_ascii_is_refused():
    outline = outline_of(b'{"a": "%b"}' % (b"\\u00e4" * LONG))
    (name,) = outline.long
    with pytest.raises(BadRequest, match="escape"):
        outline.text(name)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MAX_TOKENS + b"0]",
        b"{" + b",".join(b'"%d":0' % number for number in range(MAX_TOKENS)) + b"}",
        b"[" + b"{}," * MAX_TOKENS + b"0]",
        b'"' * (MAX_TOKENS + 1),
        b"[" * MAX_OUTLINE * 2,
        b" " * MAX_OUTLINE * 2,
        b'{"a":"' + b"a" * MAX_OUTLINE,
        b'"' + b"\\" * 10**6 + b'"',
        b'"' + b'\\"' * MAX_TOKENS,
    ],
)
def test_what_would_take_long_to_parse_is_refused_or_left_out(body):
    try:
        assert len(outline_of(body).json) <= MAX_OUTLINE
    except BadRequest as exc:
        assert "body: " in str(exc)  # noqa: PT017


def test_no_client_can_name_a_long_value():
    body = json.dumps({"a": "x" * (LONG + 1)}).encode()
    assert outline_of(body).long.keys().isdisjoint(outline_of(body).long)


def test_bytes_are_counted_across_blocks():
    body = (b"a," * 2**21)[1:]
    assert count_of(body, ord(","), 1, len(body)) == 2**21 - 1
