"""Inflation: every byte of every member, in bounded pieces, and an error for what is damaged or cut."""

import gzip
import sys
import zlib

import pytest
import zstandard

from forwarder.errors import ForwardProtocolError
from forwarder.wire import forward_inflate
from forwarder.wire.forward_inflate import FEED_BYTES, PIECE_BYTES, for_blob

TEXT = b"".join(b'{"auditID":"%d","verb":"get"}' % n for n in range(20_000))
HOW = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "zstd with checksum": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def library(request, monkeypatch):
    """Both libraries, where both are there."""
    if request.param == "zlib":
        monkeypatch.setattr(forward_inflate, "zlib", zlib)
        monkeypatch.setattr(forward_inflate._Gzip, "_errors", zlib.error)
    elif "isal.isal_zlib" not in sys.modules:
        pytest.skip("isal is not installed")


def _pieces(blob, step=FEED_BYTES):
    inflater = for_blob(blob[:4])
    for at in range(0, len(blob), step):
        inflater.feed(blob[at : at + step])
        while piece := inflater.read():
            yield piece
    inflater.finish()


@pytest.mark.parametrize("step", [1, 100, FEED_BYTES])
@pytest.mark.parametrize("how", HOW)
def test_everything_comes_out_however_it_is_fed(how, step):
    """One member, and a second and an empty one behind it."""
    text = TEXT[:3000] if step == 1 else TEXT
    compress = HOW[how]
    assert b"".join(_pieces(compress(text), step)) == text
    assert b"".join(_pieces(compress(text) + compress(b"") + compress(b"more"), step)) == text + b"more"


@pytest.mark.parametrize(("how", "most"), [("gzip", PIECE_BYTES), ("zstd", 9 << 20)])
def test_a_bomb_comes_out_in_bounded_pieces(how, most):
    """Each piece is small whatever the ratio; who reads them counts and stops."""
    sizes = [len(piece) for piece in _pieces(HOW[how](bytes(32 << 20)))]
    assert sum(sizes) == 32 << 20
    assert max(sizes) <= most


def test_a_zstd_frame_may_not_ask_for_a_huge_window():
    """The window is memory that the sender makes us allocate."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # does not say its size
    blob = compressor.compress(bytes(1 << 20)) + compressor.flush()
    with pytest.raises(ForwardProtocolError, match="zstd"):
        list(_pieces(blob))


@pytest.mark.parametrize("how", HOW)
def test_a_stream_that_ends_early_is_an_error(how):
    """Wherever it is cut, also between the last block and the checksum."""
    blob = HOW[how](b"x" * 500)
    for cut in range(1, len(blob) - 4):
        with pytest.raises(ForwardProtocolError, match=r"ends early|damaged"):
            list(_pieces(blob[:-cut]))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("junk", [b"\x00", b"junk", b"\x1f\x8b"])
def test_what_follows_the_last_member_is_an_error(how, junk):
    """It could be entries that nobody would ever see."""
    with pytest.raises(ForwardProtocolError):
        list(_pieces(HOW[how](b"x" * 500) + junk))


@pytest.mark.parametrize("first", [b"", b"\x92", b"\x1f", b"\x28\xb5\x2f", b"\xdc\0\2\x92"], ids=repr)
def test_entries_are_not_taken_for_a_compressed_stream(first):
    """An entry begins with an array, and no array begins like a compressed stream."""
    assert for_blob(first) is None
