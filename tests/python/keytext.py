"""The text of a claviger key, written anew from the contract's words.

`{prefix}_{tag}_{body}`, where the body is base62(id), 22 wide, base62(secret), 43 wide, and base62(check), 6 wide.
Nothing here asks a server, so that a mistake of the server's cannot hide behind the same mistake here.
"""

import re
import uuid
import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_WIDTH, SECRET_WIDTH, CHECK_WIDTH = 22, 43, 6
BODY_WIDTH = ID_WIDTH + SECRET_WIDTH + CHECK_WIDTH
KEY_TEXT = re.compile(r"([a-z][a-z0-9]{1,15})_([a-z0-9]{1,12})_([0-9A-Za-z]{71})")


def base62(value: int, width: int) -> str:
    """Big-endian and left-padded with `0`."""
    digits = []
    while value:
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    if len(digits) > width:
        raise ValueError("the number does not fit the width")
    return "".join(reversed(digits)).rjust(width, "0")


def number(text: str) -> int:
    value = 0
    for character in text:
        value = value * 62 + ALPHABET.index(character)
    return value


def checksum(text_before_it: str) -> str:
    return base62(zlib.crc32(text_before_it.encode("ascii")), CHECK_WIDTH)


def with_checksum(text_before_it: str) -> str:
    return text_before_it + checksum(text_before_it)


def compose(prefix: str, tag: str, key_id: uuid.UUID, secret: bytes) -> str:
    body = base62(key_id.int, ID_WIDTH) + base62(int.from_bytes(secret, "big"), SECRET_WIDTH)
    return with_checksum(f"{prefix}_{tag}_{body}")


class Parts:
    """The parts of a key's text. Not a dataclass: it shall have no representation that shows them."""

    def __init__(self, text: str):
        match = KEY_TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not the form of a key")
        self.prefix, self.tag, self.body = match.groups()
        self.id_digits = self.body[:ID_WIDTH]
        self.secret_digits = self.body[ID_WIDTH : ID_WIDTH + SECRET_WIDTH]
        if number(self.id_digits) >> 128 or number(self.secret_digits) >> 256:
            raise ValueError("a number beyond the width of its source")
        if with_checksum(text[:-CHECK_WIDTH]) != text:
            raise ValueError("a wrong checksum")

    @property
    def key_id(self) -> str:
        return str(uuid.UUID(int=number(self.id_digits)))


def with_another_secret(text: str) -> str:
    """The same id, a secret that differs in its lowest bit, and the checksum which belongs to that."""
    parts = Parts(text)
    secret = base62(number(parts.secret_digits) ^ 1, SECRET_WIDTH)
    return with_checksum(f"{parts.prefix}_{parts.tag}_{parts.id_digits}{secret}")


def with_another_id(text: str, key_id: uuid.UUID) -> str:
    parts = Parts(text)
    digits = base62(key_id.int, ID_WIDTH)
    return with_checksum(f"{parts.prefix}_{parts.tag}_{digits}{parts.secret_digits}")


def under_another_heading(text: str, prefix: str, tag: str) -> str:
    """The same id and secret under another prefix and tag, with the checksum which belongs to that."""
    parts = Parts(text)
    return with_checksum(f"{prefix}_{tag}_{parts.id_digits}{parts.secret_digits}")


def with_one_character_changed(text: str, position: int) -> str:
    old = text[position]
    new = "1" if old == "0" else "0"
    return text[:position] + new + text[position + 1 :]


# ---- the self-test ---------------------------------------------------------------------------------------------------

VECTOR_ID = uuid.UUID("0192f0c1-2345-7abc-8def-0123456789ab")
VECTOR_SECRET = bytes(range(32))


def self_test() -> int:
    """Proves these helpers alone, with no server. Answers how many of them it tried."""

    def must(condition: bool, what: str):
        if not condition:
            raise AssertionError(what)

    def refuses(make, what: str):
        try:
            make()
        except ValueError:
            return
        raise AssertionError(what)

    def base62_counts_and_pads():
        must([base62(n, 2) for n in (0, 9, 10, 35, 36, 61, 62)] == ["00", "09", "0A", "0Z", "0a", "0z", "10"], "digits")
        must(all(number(base62(n, 22)) == n for n in (0, 1, 61, 62, 2**64, 2**128 - 1)), "there and back")
        refuses(lambda: base62(62**2, 2), "too wide a number was taken")

    def the_widths_are_the_least_which_do():
        for bits, width in ((128, ID_WIDTH), (256, SECRET_WIDTH), (32, CHECK_WIDTH)):
            must(62 ** (width - 1) < 2**bits <= 62**width, f"{bits} bits need another width than {width}")

    def the_checksum_is_that_of_zlib():
        # The check value that the standard itself gives for these nine digits.
        must(number(checksum("123456789")) == 0xCBF43926, "CRC-32")

    def a_key_falls_apart_into_what_it_was_made_of():
        text = compose("demo", "live", VECTOR_ID, VECTOR_SECRET)
        parts = Parts(text)
        must(len(parts.body) == BODY_WIDTH, "the width of the body")
        must((parts.prefix, parts.tag, parts.key_id) == ("demo", "live", str(VECTOR_ID)), "the parts")
        must(number(parts.secret_digits).to_bytes(32, "big") == VECTOR_SECRET, "the secret")

    def a_forged_key_has_the_form_and_not_the_secret():
        text = compose("demo", "live", VECTOR_ID, VECTOR_SECRET)
        forged = with_another_secret(text)
        must(forged != text and Parts(forged).key_id == str(VECTOR_ID), "another secret")
        must(with_another_secret(forged) == text, "twice is back again")
        stranger = with_another_id(text, uuid.UUID(int=7))
        must(Parts(stranger).key_id == str(uuid.UUID(int=7)), "another id")
        moved = Parts(under_another_heading(text, "other", "test"))
        must((moved.prefix, moved.tag, moved.key_id) == ("other", "test", str(VECTOR_ID)), "another heading")

    def any_one_changed_character_is_noticed():
        text = compose("demo", "live", VECTOR_ID, VECTOR_SECRET)
        for position in range(len("demo_live_"), len(text)):
            refuses(lambda: Parts(with_one_character_changed(text, position)), f"not noticed at {position}")

    def numbers_beyond_their_source_are_refused():
        refuses(lambda: Parts(with_checksum("demo_live_" + "z" * ID_WIDTH + "0" * SECRET_WIDTH)), "a wide id")
        refuses(lambda: Parts(with_checksum("demo_live_" + "0" * ID_WIDTH + "z" * SECRET_WIDTH)), "a wide secret")

    tried = 0
    for test in list(locals().values()):
        if callable(test) and test not in (must, refuses):
            test()
            tried += 1
            print("ok:", test.__name__.replace("_", " "))
    # Not a secret: its bytes are written in the contract.
    print("test vector:", compose("demo", "live", VECTOR_ID, VECTOR_SECRET))
    return tried
