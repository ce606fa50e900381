"""The equalities that a notebook claims: checked where they are claimed, listed at the end."""

import torch


class Equalities:
    """Claims "this equals that", with the largest deviation found when each was last checked."""

    def __init__(self):
        self.rows: dict[str, tuple[float, float]] = {}  # so a cell that is run again adds none

    def check(self, claim: str, here, there, tolerance: float = 1e-5) -> None:
        """Compare two results, print the largest deviation, and keep it for ``table``.

        Args:
            claim: what is equal to what, in a few words.
            here, there: tensors of one shape, or numbers.
            tolerance: the largest absolute difference that still counts as equal.

        Raises:
            ValueError: the shapes differ, or the values differ by more than ``tolerance``.
        """
        # on the CPU, since the GPUs of Apple have no float64
        here, there = (torch.as_tensor(side).detach().cpu().double() for side in (here, there))
        if here.shape != there.shape:
            raise ValueError(
                f"{claim}: the shapes {tuple(here.shape)} and {tuple(there.shape)} differ."
            )
        deviation = (here - there).abs().max().item()
        if not deviation <= tolerance:  # NaN, too, is not equal
            raise ValueError(f"{claim}: they differ by {deviation:.1e}, more than {tolerance:.0e}.")
        self.rows[claim] = deviation, tolerance
        print(f"{claim}: largest deviation {deviation:.1e}")

    def table(self) -> None:
        """Print every claim with the deviation found and the one allowed."""
        width = max(map(len, self.rows), default=0)
        print(f"{'equal':{width}}  found    allowed")
        for claim, (deviation, tolerance) in self.rows.items():
            print(f"{claim:{width}}  {deviation:.1e}  {tolerance:.0e}")
