"""The list of equalities that notebooks keep."""

import pytest
import torch

from convrnn_utils.equalities import Equalities


def test_equal_results_are_listed_with_their_deviation(capsys):
    equalities = Equalities()
    equalities.check("one and one", torch.ones(2, 3), torch.ones(2, 3) + 1e-6)
    for _ in range(2):
        equalities.check("a number", 2, 2.0)
    capsys.readouterr()
    equalities.table()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # although the cell of the second was run twice
    assert lines[1].split() == ["one", "and", "one", lines[1].split()[3], "1e-05"]
    assert 5e-7 < float(lines[1].split()[3]) < 2e-6
    assert lines[2].split() == ["a", "number", "0.0e+00", "1e-05"]


@pytest.mark.parametrize("there", [torch.ones(3) + 1e-3, torch.full((3,), torch.nan)])
def test_unequal_results_are_refused_and_not_listed(there):
    equalities = Equalities()
    with pytest.raises(ValueError, match="ones: they differ by"):
        equalities.check("ones", torch.ones(3), there)
    assert equalities.rows == {}


def test_other_shapes_are_refused_even_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"\(3, 1\) and \(3,\) differ"):
        Equalities().check("ones", torch.ones(3, 1), torch.ones(3))
