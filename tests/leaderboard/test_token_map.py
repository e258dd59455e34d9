import base64
import struct
import zlib

from dlbench.leaderboard.charts.token_map import STEPS, WIDEST, tints, token_map


def pixels(drawn):
    """Rows of a map's picture from the lowest layer up, a digit per token."""
    raw = base64.b64decode(drawn.picture.removeprefix("data:image/png;base64,"))
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(raw):
        (size,), name = struct.unpack(">I", raw[at : at + 4]), raw[at + 4 : at + 8]
        body = raw[at + 8 : at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + size
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (width, height, depth, kind) == (drawn.columns, drawn.layers, 2, 3)
    data = zlib.decompress(chunks[b"IDAT"])
    line = 1 + -(-width // 4)
    rows = [data[start + 1 : start + line] for start in range(0, len(data), line)]
    return ["".join(str(byte >> shift & 3) for byte in row for shift in (6, 4, 2, 0))[:width] for row in rows][::-1]


def test_a_map_shows_what_every_token_ran():
    drawn = token_map([("3100", 2), ("0032", 1)])
    assert (drawn.columns, drawn.layers, drawn.cut) == (4, 4, 0)
    assert pixels(drawn) == ["3220", "3110", "3002", "3001"]
    assert not drawn.varies
    assert token_map([("30", 1), ("33", 1)]).varies


def test_a_map_is_cut_where_nobody_could_read_it():
    drawn = token_map([("33", 10 * WIDEST), ("00", 5)])
    assert drawn.columns == WIDEST + 1
    assert drawn.cut == 9 * WIDEST + 5
    assert pixels(drawn) == ["3" + "2" * WIDEST] * 2


def test_there_is_no_map_without_routes_or_of_two_depths():
    assert token_map([]) is None
    assert token_map([("33", 1), ("333", 1)]) is None


def test_tints_follow_the_layers_of_the_forward_that_wrote_the_token():
    assert tints([("3300", 1), ("0000", 2)], ["A", " b", " c", " d"]) == [(STEPS, "A"), (STEPS // 2, " b"), (0, " c d")]
    assert tints([("33", 1)], ["A"]) == [(STEPS, "A")]
