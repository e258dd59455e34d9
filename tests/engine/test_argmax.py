import pytest
import torch

from dlbench.engine.sampling import argmax_with_margin


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_the_first_of_the_highest_and_its_margin(layout):
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 97, generator=random)
    scores[:25] = scores[:25].round()  # many ties
    scores[7, :90] = -torch.inf
    if layout == "columns":
        scores = scores.t().contiguous().t()
    before = scores.clone()
    places, margins = argmax_with_margin(scores)
    best, second = before.topk(2, -1).values.T
    assert margins == (best - second).tolist()
    assert places.tolist() == [row.tolist().index(max(row.tolist())) for row in before]
    assert torch.equal(scores, before)


def test_a_row_that_is_not_finite_has_no_margin():
    scores = torch.tensor([[1.0, torch.nan, 3.0], [1.0, 2.0, 4.0]])
    _, margins = argmax_with_margin(scores)
    assert margins[0] != margins[0]
    assert margins[1] == 2
