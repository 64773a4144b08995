"""Signatures of webhooks: the specification's own example, and what must not pass."""

from __future__ import annotations

import pytest

from services.rest import is_genuine, secret_of, sign

# The example of the Standard Webhooks reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
NOW = 1614265330.0


def test_the_headers_are_those_of_the_specification() -> None:
    """The specification's example is signed to the letter."""
    assert sign(SECRET, HEADERS["webhook-id"], 1614265330, BODY) == HEADERS


def test_what_was_signed_is_genuine() -> None:
    """Also beside another signature, as while a key is replaced."""
    assert is_genuine(SECRET, HEADERS, BODY, NOW)
    both = HEADERS | {"webhook-signature": "v1,AAAA " + HEADERS["webhook-signature"]}
    assert is_genuine(SECRET, both, BODY, NOW)


@pytest.mark.parametrize(("ahead", "genuine"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_five_minutes_are_tolerated(ahead: float, genuine: bool) -> None:
    """A clock may be five minutes off, either way; older (or later) is refused though well signed."""
    assert is_genuine(SECRET, HEADERS, BODY, NOW + ahead) is genuine


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-id": "x" * 257},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": "1614265330.0"},
        {"webhook-timestamp": "-1614265330"},
        {"webhook-timestamp": "١٦١٤٢٦٥٣٣٠"},
        {"webhook-timestamp": "1" * 5000},
        {"webhook-timestamp": ""},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
        {"webhook-signature": "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
        {"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1O"},
        {"webhook-signature": "v1,ÿ"},
    ],
)
def test_a_changed_header_is_not_genuine(changed: dict[str, str]) -> None:
    """Each of the three headers is bound to the others."""
    assert not is_genuine(SECRET, HEADERS | changed, BODY, NOW)


def test_another_body_or_secret_is_not_genuine() -> None:
    """Who does not know the secret signs nothing; the body is bound to the signature; no header is no signature."""
    assert not is_genuine(SECRET, HEADERS, BODY + b" ", NOW)
    assert not is_genuine(secret_of(b"\0" * 24), HEADERS, BODY, NOW)
    assert not is_genuine(SECRET, {}, BODY, NOW)


def test_a_secret_of_another_form_is_refused() -> None:
    """Not base64: an error, not a key that anyone could guess."""
    with pytest.raises(ValueError, match="whsec_"):
        sign("whsec_*", "id", 1, b"")
