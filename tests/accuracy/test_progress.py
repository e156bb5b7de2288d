from __future__ import annotations

from mpcbench import accuracy


def test_the_bar_is_on_standard_error_alone(capfd):
    with accuracy.progress_bar("Scoring answers") as progress:
        progress(3, 8)
        progress(8, 8)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Scoring answers" in err and "8/8" in err
