"""Bearer tokens: what they say of themselves."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.util.tokens import TokenInfo, is_token, read_token


def jwt(claims: object) -> str:
    """A token with these claims and no signature."""
    packed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{packed}.c2ln"


@pytest.mark.parametrize(
    ("claims", "wanted"),
    [
        (
            {"iat": 10, "exp": 20.5, "iss": "https://iam", "sub": "me", "aud": "storage"},
            TokenInfo(10.0, 20.5, "https://iam", "me", "storage"),
        ),
        ({"nbf": 5, "exp": 20, "aud": ["a", "b"]}, TokenInfo(5.0, 20.0, audience="a b")),
        ({}, TokenInfo()),
        ({"exp": "soon", "iat": True}, TokenInfo()),
        ({"exp": float("inf"), "iat": float("nan")}, TokenInfo()),
        ([1], TokenInfo()),
    ],
)
def test_a_json_web_token_says_when_it_ends_and_for_whom_it_is(claims: object, wanted: TokenInfo) -> None:
    assert read_token(jwt(claims)) == wanted


@pytest.mark.parametrize(
    "token", ["", "sesame", "a.b", "a.b.c", "a.b.c.d", "e30.bm90IGpzb24.x", "\u00e9.\u00e9.\u00e9"]
)
def test_an_opaque_token_says_nothing(token: str) -> None:
    assert read_token(token) == TokenInfo()


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read_token(text)
    read_token(f"a.{text}.b")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sesame", True),
        (jwt({}), True),
        ("", False),
        ("a b", False),
        ("a\nb", False),
        ("\u00e9", False),
        ("a\0", False),
    ],
)
def test_a_token_is_one_printable_word(text: str, wanted: bool) -> None:
    assert is_token(text) is wanted
