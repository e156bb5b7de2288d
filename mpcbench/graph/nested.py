"""Cubics and quartics brought to a form that two squarings or products compute.

A quartic without its cubic term is a completed square and a linear rest:
``s p(g) = (t² + e)² + m t + n`` with ``t = |c4|^¼ (g + c3 / 4 c4)`` and ``s = sign(c4)``. A cubic without its
quadratic term is ``s p(g) = (t² + e) t + n`` with ``t = |c3|^⅓ (g + c2 / 3 c3)`` and ``s = sign(c3)``. Scale
and shift go into the gate projection, the sign into the up projection; e, m, n are secret numbers a channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

MAX_CENTRE = 64.0
"""Largest |e|: beyond it the square is so much larger than the value that fixed point loses the value."""

MAX_LIFT = 5e-4
"""By how much at most a leading coefficient is changed for that. A few channels of a trained layer need 10⁻⁴,
which moves the value by 0.03 at a gate of 4."""

LEAST = 1e-9
STEP = 1.1
"""The smallest leading coefficient, and the factor by which it is raised."""


@dataclass(frozen=True)
class NormalForm:
    """What the gate becomes, ``scale (g + shift)``, the factor of the up value, and the constants, (H,)."""

    scale: torch.Tensor
    shift: torch.Tensor
    sign: torch.Tensor
    constants: dict[str, torch.Tensor]


def normal_form(coefficients: torch.Tensor) -> NormalForm | None:
    """The form of polynomials with ``coefficients`` (4 or 5, H), ascending; None when a channel has none.

    Where a leading coefficient is so small that e would exceed :data:`MAX_CENTRE`, it is raised until e does
    not: the form is then of a polynomial beside the given one. A channel has none when :data:`MAX_LIFT` is
    not enough.
    """
    form = _form(_raised(coefficients))
    finite = all(bool(torch.isfinite(c).all()) for c in (form.scale, form.shift, *form.constants.values()))
    return form if finite and bool((form.constants["e"].abs() <= MAX_CENTRE).all()) else None


def _form(coefficients: torch.Tensor) -> NormalForm:
    return _cubic(coefficients) if len(coefficients) == 4 else _quartic(coefficients)


def _raised(coefficients: torch.Tensor) -> torch.Tensor:
    """The coefficients, with leading ones that are large enough where :data:`MAX_LIFT` makes them so."""
    leading = coefficients[-1].abs().clamp_min(LEAST).copysign(coefficients[-1])
    while True:
        raised = torch.cat([coefficients[:-1], leading[None]])
        far = ~(_form(raised).constants["e"].abs() <= MAX_CENTRE)
        far &= (leading * STEP - coefficients[-1]).abs() <= MAX_LIFT
        if not far.any():
            return raised
        leading = torch.where(far, leading * STEP, leading)


def _shifted(coefficients: torch.Tensor, shift: torch.Tensor) -> list[torch.Tensor]:
    """Coefficients of the same polynomial in ``t = g + shift``, by repeated division (Horner's scheme)."""
    values = list(coefficients)
    for first in range(len(values) - 1):
        for k in range(len(values) - 2, first - 1, -1):
            values[k] = values[k] - shift * values[k + 1]
    return values


def _quartic(coefficients: torch.Tensor) -> NormalForm:
    c3, c4 = coefficients[3], coefficients[4]
    shift = c3 / (4 * c4)
    p0, p1, p2, _, _ = _shifted(coefficients, shift)
    sign, scale = c4.sign(), c4.abs().pow(0.25)
    e = sign * p2 / (2 * scale.square())
    return NormalForm(scale, shift, sign, {"e": e, "m": sign * p1 / scale, "n": sign * p0 - e.square()})


def _cubic(coefficients: torch.Tensor) -> NormalForm:
    c2, c3 = coefficients[2], coefficients[3]
    shift = c2 / (3 * c3)
    p0, p1, _, _ = _shifted(coefficients, shift)
    sign, scale = c3.sign(), c3.abs().pow(1 / 3)
    return NormalForm(scale, shift, sign, {"e": sign * p1 / scale, "n": sign * p0})
