"""Bodies of requests: never more is read or unpacked than may come."""

import gzip

import pytest

from segfw.review_page.request_body import BodyDamaged, BodyTooLarge, most_packed_bytes, read_body, unpacked


def stream_of(parts, taken):
    async def stream():
        for part in parts:
            taken.append(len(part))
            yield part

    return stream()


def finished(coroutine):
    """What a coroutine gives that waits for nothing; tests with a browser have a loop in this thread already."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def read(headers, parts, most_bytes):
    taken: list[int] = []
    return finished(read_body(headers, stream_of(parts, taken), most_bytes)), taken


def test_a_body_is_put_together():
    assert read({"content-length": "5"}, [b"ab", b"cde"], 5) == (b"abcde", [2, 3])
    assert read({}, [b"ab", b"", b"c"], 3)[0] == b"abc"


def test_a_length_that_is_too_large_is_refused_before_anything_is_read():
    taken: list[int] = []
    with pytest.raises(BodyTooLarge):
        finished(read_body({"content-length": str(1 << 30)}, stream_of([b"a"] * 9, taken), 100))
    assert taken == []


@pytest.mark.parametrize("length", [None, "3", "-1", "+1", "1e3", "x"])
def test_a_length_that_lies_or_lacks_does_not_let_more_in(length):
    taken: list[int] = []
    headers = {} if length is None else {"content-length": length}
    with pytest.raises(BodyTooLarge):
        finished(read_body(headers, stream_of([b"a" * 60] * 1000, taken), 100))
    assert len(taken) == 2


@pytest.mark.parametrize("size", [0, 1, 255, 70_000, 3_000_000])
def test_what_was_gzipped_comes_back(size):
    content = bytes(number * 31 % 251 for number in range(size))
    assert unpacked(gzip.compress(content), size) == content
    assert len(gzip.compress(content)) <= most_packed_bytes(size)
    assert unpacked(gzip.compress(bytes(size)), size) == bytes(size)


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(200_000_000), 9)
    assert len(bomb) < most_packed_bytes(1_000_000)  # it would be let in by its size
    with pytest.raises(BodyTooLarge):
        unpacked(bomb, 1_000_000)


def test_one_voxel_too_many_or_too_few_is_told():
    with pytest.raises(BodyTooLarge):
        unpacked(gzip.compress(bytes(11)), 10)
    with pytest.raises(BodyDamaged, match="9 voxels, and 10"):
        unpacked(gzip.compress(bytes(9)), 10)


def test_what_was_cut_or_is_no_gzip_is_told():
    whole = gzip.compress(bytes(range(256)) * 100)
    for end in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        with pytest.raises(BodyDamaged, match="cut"):
            unpacked(whole[:end], 25_600)
    with pytest.raises(BodyDamaged, match="cannot be unpacked"):
        unpacked(b"no gzip at all", 25_600)
    with pytest.raises(BodyDamaged, match="more follows"):
        unpacked(whole + b"x", 25_600)
    for place in range(12, len(whole), 7):  # a flipped byte is found by its checksum, or before
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        with pytest.raises((BodyDamaged, BodyTooLarge)):
            unpacked(bytes(damaged), 25_600)
