"""Bodies with a cap: what is beyond it is known by size and hash, whatever the encoding."""

import gzip
import hashlib

import pytest

from forwarder.wire import http_body
from forwarder.wire.http_body import Body, BodyReader, TooLong

DATA = b"".join(b"line %d\n" % number for number in range(20_000))


def read(data, *, max_bytes=1 << 20, zipped=False, step=1000):
    reader = BodyReader(max_bytes=max_bytes, gzip=zipped)
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        while reader.work():
            pass
    return reader.finish()


@pytest.mark.parametrize("step", [1, 3, 4096, 1 << 20])
def test_a_body_is_read_whole_however_it_comes(step):
    """Plain and gzip, one member or several."""
    some = DATA[:5000]
    assert read(some, step=step) == Body(some)
    assert read(gzip.compress(some), zipped=True, step=step) == Body(some)
    assert read(gzip.compress(some) + gzip.compress(some), zipped=True, step=step) == Body(some + some)
    assert read(b"", zipped=True) == Body(b"")


def test_what_is_beyond_the_cap_is_counted_and_hashed():
    """So that a dead letter can say what was lost."""
    body = read(DATA, max_bytes=5000)
    assert body == Body(DATA[:5000], "body_too_large", len(DATA) - 5000, hashlib.sha256(DATA[5000:]).hexdigest())


def test_a_bomb_is_not_inflated_beyond_the_cap():
    """Memory stays at the cap plus one piece."""
    bomb = gzip.compress(b"\0" * (64 << 20))
    reader = BodyReader(max_bytes=1 << 20, gzip=True)
    most = 0
    for at in range(0, len(bomb), 8192):
        reader.feed(bomb[at : at + 8192])
        while reader.work():
            most = max(most, reader.held_bytes)
    body = reader.finish()
    assert most <= (1 << 20) + (1 << 18)
    assert (len(body.data), body.fault) == (1 << 20, "body_too_large")


@pytest.mark.parametrize(
    "data",
    [b"no gzip at all", b"no", gzip.compress(DATA)[:-9], gzip.compress(DATA)[:9000] + b"oops" * 9000, b"\x28\xb5\x2f\xfdxxxx"],
    ids=["text", "short text", "cut", "damaged", "zstd"],
)  # fmt: skip
def test_what_is_no_sound_gzip_has_a_fault(data):
    """What came out of it is kept; the dead letter is about the whole."""
    body = read(data, zipped=True)
    assert body.fault == "bad_gzip"
    assert body.data[:7] in (b"line 0\n", b"")
    assert (body.rest_bytes, body.rest_sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_body_without_end_is_refused(monkeypatch):
    """Reading on would help nobody."""
    monkeypatch.setattr(http_body, "MAX_READ_BYTES", 10_000)
    with pytest.raises(TooLong):
        read(DATA, max_bytes=5000)
