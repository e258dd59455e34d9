from dlbench.leaderboard.tokenmap import STEPS, WIDEST, tints, token_map


def cells(path, layers):
    """(column, layer) of every cell that a path covers."""
    found = set()
    for run in path.split("M")[1:]:
        x, rest = run.split(" ")
        y, width = rest.split("h")
        found |= {(int(x) + step, layers - 1 - int(float(y))) for step in range(int(width))}
    return found


def test_a_map_shows_what_every_token_ran():
    drawn = token_map([("3100", 2), ("0032", 1)])
    assert (drawn.columns, drawn.layers, drawn.cut) == (4, 4, 0)
    assert cells(drawn.whole, 4) == {(1, 0), (2, 0), (3, 2)}
    assert cells(drawn.half, 4) == {(1, 1), (2, 1), (3, 3)}
    assert not drawn.varies
    assert token_map([("30", 1), ("33", 1)]).varies


def test_a_map_is_cut_where_nobody_could_read_it():
    drawn = token_map([("33", 10 * WIDEST), ("00", 5)])
    assert drawn.columns == WIDEST + 1
    assert drawn.cut == 9 * WIDEST + 5
    assert cells(drawn.whole, 2) == {(x, y) for x in range(1, WIDEST + 1) for y in (0, 1)}


def test_there_is_no_map_without_routes_or_of_two_depths():
    assert token_map([]) is None
    assert token_map([("33", 1), ("333", 1)]) is None


def test_tints_follow_the_layers_of_the_forward_that_wrote_the_token():
    assert tints([("3300", 1), ("0000", 2)], ["A", " b", " c", " d"]) == [(STEPS, "A"), (STEPS // 2, " b"), (0, " c d")]
    assert tints([("33", 1)], ["A"]) == [(STEPS, "A")]
