"""The closed-form fit: one weighted least-squares polynomial a channel.

With the MLP's output y = W_down (a * u), a_j = silu(g_j), an error e_tj of the activation of channel j
at token t moves the output by W_down[:, j] u_tj e_tj. The diagonal Gauss-Newton (Hessian-aware)
approximation of the squared output error, which leaves out products of different channels, is

    sum_t w_t sum_j u_tj^2 (W_down^T W_down)_jj (p_j(g_tj) - silu(g_tj))^2,

as in optimal brain surgeon (Hassibi and Stork, NIPS 1992) and the quantisers built on it. It is quadratic in
the coefficients, so its minimum is one small linear system a channel. The factor (W_down^T W_down)_jj
is constant within a channel: it cancels where every channel has a polynomial of its own and decides
only how channels share one (``per_channel=False``, and the prior of :meth:`Moments.solve`).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from mpcbench.checkpoints.polyllama import MIN_LEADING, SILU_SERIES

RIDGE = 1e-6
"""Pull towards the shared polynomial, relative to a channel's total weight: seen only where data is not."""

GUARD_WEIGHT = 1e-5
"""Share of a channel's weight that lies on evenly spaced gates, see :meth:`Moments.guard`."""
GUARD_REACH = 1.5
GUARD_POINTS = 9

BASIS_RIDGE = 1e-3
"""In units of a channel's own gate: bounds the steps along :meth:`Moments.basis` where no gate was seen."""

ROWS = 128
"""Tokens that are summed over at a time: their powers, in float64, stay in a core's cache."""


class Moments:
    """Weighted sums over tokens from which the polynomials of one layer follow.

    For each channel: ``powers[k]`` = sum w u^2 g^k for k <= 2 degree, and ``targets[k]`` =
    sum w u^2 silu(g) g^k for k <= degree, all in float64.
    """

    def __init__(self, channels: int, degree: int, device: torch.device | str = "cpu"):
        self.degree = degree
        self.powers = torch.zeros(2 * degree + 1, channels, dtype=torch.float64, device=device)
        self.targets = torch.zeros(degree + 1, channels, dtype=torch.float64, device=device)

    def add(self, gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor) -> None:
        """gate, up: [tokens, channels]; weight: [tokens], not negative."""
        for rows in zip(gate.split(ROWS), up.split(ROWS), weight.split(ROWS), strict=True):
            self._add(*rows)

    def _add(self, gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor) -> None:
        gate = gate.double()
        term = weight.double()[:, None] * up.double().square()
        silu = functional.silu(gate)
        for power in range(2 * self.degree + 1):
            self.powers[power] += term.sum(0)
            if power <= self.degree:
                self.targets[power] += (term * silu).sum(0)
            if power < 2 * self.degree:
                term = term * gate

    def guard(self, largest: torch.Tensor, reach: float) -> None:
        """Let each channel weigh gates that it has hardly seen, a little; to be called last.

        largest: [channels], magnitudes of the gate; reach: up to how many times them gates are weighed. A
        polynomial of degree three or four that is fitted to what was seen alone runs away just beyond it, and
        one token of new text then spoils all others.
        """
        share = (GUARD_WEIGHT / GUARD_POINTS * self.powers[0]).sqrt()
        points = torch.linspace(-reach, reach, GUARD_POINTS, device=share.device)
        gates = points[:, None] * largest
        self.add(gates, share.expand_as(gates), torch.ones_like(points))

    def shared(self, output_weight: torch.Tensor) -> torch.Tensor:
        """The one polynomial of all channels, [degree + 1].

        output_weight: [channels], (W_down^T W_down)_jj.
        """
        weight = output_weight.double()[None]
        series = self.powers.new_tensor(SILU_SERIES[: self.degree + 1])[:, None]
        powers = (self.powers * weight).sum(1, keepdim=True)
        targets = (self.targets * weight).sum(1, keepdim=True)
        return _solve(powers, targets, series, RIDGE)[:, 0]

    def solve(
        self, output_weight: torch.Tensor, per_channel: bool = True, ridge: float = RIDGE
    ) -> torch.Tensor:
        """Coefficients in ascending powers, [degree + 1, channels], float64.

        A channel that the data leaves open (it is always off, or its gate never moves) gets the layer's
        shared polynomial, towards which ``ridge`` pulls; with ``per_channel=False`` all channels get it.
        A quadratic keeps |a| >= ``MIN_LEADING``, so that export can complete the square.
        """
        prior = self.shared(output_weight)[:, None].expand(-1, self.powers.shape[1])
        if not per_channel:
            return prior.clone()
        free = _solve(self.powers, self.targets, prior, ridge)
        return free if self.degree > 2 else self._with_floor(free, prior, ridge)

    def basis(self, output_weight: torch.Tensor, per_channel: bool = True) -> torch.Tensor:
        """Polynomials that are orthonormal over a channel's gates, [degree + 1, degree + 1, channels].

        ``[:, j]`` is polynomial j, of degree j, in ascending powers (float64). Whatever j is, adding it moves
        the channel's activation by one in the weighted root mean square, rare gates of 50 included, whose
        fourth power is a million times that of the others. With ``per_channel=False`` they are orthonormal
        over the gates of all channels together, and the last dimension is 1.
        """
        powers = self.powers if per_channel else (self.powers * output_weight.double()).sum(1, keepdim=True)
        matrix, units, floor = _normal_matrix(powers, self.degree)
        eye = torch.eye(self.degree + 1, dtype=torch.float64, device=powers.device)
        lower = torch.linalg.cholesky(matrix / (powers[0] + floor)[:, None, None] + BASIS_RIDGE * eye)
        columns = torch.linalg.solve_triangular(lower.mT, eye.expand_as(lower), upper=True)
        return columns.permute(1, 2, 0) / units[:, None]

    def _with_floor(self, free: torch.Tensor, prior: torch.Tensor, ridge: float) -> torch.Tensor:
        """The best quadratics with |a| at least ``MIN_LEADING``.

        The objective is convex in a: where the free optimum lies below the floor, the nearer of the two
        bounds is best, and b and c are fitted again to what a leaves over.
        """
        bound = torch.full_like(free[2], MIN_LEADING).copysign(free[2])
        rest = _solve(self.powers[:3], self.targets[:2] - bound * self.powers[2:4], prior[:2], ridge)
        return torch.where(free[2].abs() < MIN_LEADING, torch.cat([rest, bound[None]]), free)


def _solve(powers: torch.Tensor, targets: torch.Tensor, prior: torch.Tensor, ridge: float) -> torch.Tensor:
    """Solve all channels' normal equations, each in units of its own gate."""
    degree = targets.shape[0] - 1
    matrix, units, floor = _normal_matrix(powers, degree)
    right = (targets / units).T
    pull = (ridge * powers[0] + floor)[:, None]
    matrix = matrix + pull[..., None] * torch.eye(degree + 1, dtype=torch.float64, device=powers.device)
    right = right + pull * (prior * units).T
    solution = torch.linalg.solve(matrix, right[..., None])[..., 0]
    return solution.T / units


def _normal_matrix(powers: torch.Tensor, degree: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[channels, degree + 1, degree + 1] in x = g / s, s^k as [degree + 1, channels], and a floor of weights.

    With s the weighted root mean square of g, the entries are of order one whatever the channel's range;
    without that, g^8 of a wide channel would drown everything else. The floor is for channels that have no
    weight, such as those that are always off.
    """
    total = powers[0]
    floor = 1e-12 * total.mean() + torch.finfo(torch.float64).tiny
    scale = (powers[2] / (total + floor)).sqrt().clamp_min(1e-3)
    index = torch.arange(degree + 1, device=powers.device)
    units = scale[None] ** torch.arange(2 * degree + 1, device=powers.device)[:, None]
    matrix = (powers / units)[index[:, None] + index[None, :]].permute(2, 0, 1)
    return matrix, units[: degree + 1], floor
