"""SiLU and softmax of SHAFT, from that paper's description.

Both approximate the graph's functions with parameters that are the same for every model: neither terms,
bounds nor steps come from calibration. Two things differ from the paper's code. It draws the mask of a
series' argument from one period and opens the difference unreduced, which shows about which period the
argument lies in; here the phase alone is opened, under a mask that is uniform over a turn
(:mod:`mpcbench.secure.evaluate`). And its softmax knows of no mask, so that hidden keys are scores like any;
here the causal mask is public.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from mpcbench.compat import import_crypten
from mpcbench.cost import crypten as price
from mpcbench.cost.declared import Cost
from mpcbench.graph.interpreter import causal_mask
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.evaluate import trig_cost
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.crypten_glu import StockGLU
from mpcbench.secure.operators.crypten_glu import SwiGLU as StockSwiGLU
from mpcbench.secure.operators.published import TRIG_BITS, by_series
from mpcbench.secure.ring import bits_of, wrap
from mpcbench.secure.series import Period, Series, sine_series


class SwiGLU(StockGLU):
    """silu(g) · u with silu(g) = relu(g) + [|g| < w] · s(|g|), where s is a sine series of period 2w.

    silu - relu is even; times the sign of g it is odd, has no constant and no cosines, and vanishes far out.
    Two comparisons, one after the other: g < 0 gives relu(g) and |g| = 2 relu(g) - g, and |g| < w the window.
    """

    name, op = "shaft.swiglu", "swiglu"
    source = "SHAFT (Kei & Chow, NDSS 2025), Fourier series beside ReLU; its code, approximations.py: silu"
    domain = "all g; silu errs by 5.3e-3 at most, by 2.7e-3 where |g| > 8; what is declared has |u| < 3"
    error = 1.6e-2

    class Params(Params):
        """``terms`` of the series, whose period is 2^``log_period``; the window w is half a period."""

        terms: int = Field(default=12, ge=1)
        log_period: int = 4

    @classmethod
    def sample(cls) -> Sample:
        sample = StockSwiGLU.sample()
        sample.inputs[0] = sample.inputs[0] * 2  # beyond the window on both sides
        return sample

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return 2 * price.ltz(n) + trig_cost(n, self._series()) + 3 * price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        gate, up = inputs
        relu = gate * (1 - gate._ltz())
        magnitude = relu + relu - gate
        within = (magnitude - 2.0 ** (self.params.log_period - 1))._ltz()
        return (relu + within * by_series(magnitude, self._series())) * up

    def _series(self) -> Series:
        return sine_series("silu_less_relu", Period(self.params.log_period), TRIG_BITS, self.params.terms)


class Softmax(Operator):
    """n of Euler's steps, on clipped scores s, of the differential equation whose value at time one is the
    softmax: y += (s - <s, y>) y / n, from y uniform over the keys that the mask lets through.

    The bounds lie n apart, so that no step makes a weight negative. A hidden key starts at zero and is kept
    there. Scores masked by -10000 would be clipped to the lower bound like any others: 31 hidden keys at -4
    outweigh one that is seen at -1.
    """

    name, op = "shaft.softmax", "softmax"
    source = "SHAFT (Kei & Chow, NDSS 2025), clipped ODE softmax; its code, approximations.py: softmax"
    domain = (
        "scores from -4 to 12 themselves, not less their row's maximum; Euler's steps then err by at most "
        "0.0075 with 2 keys, 0.019 with 8, 0.065 with 32 (declared), 0.14 with 128, 0.25 with 512"
    )
    error = 6.5e-2

    class Params(Params):
        """``lower`` and ``upper``: to what scores are clipped; ``steps``: n."""

        lower: float = -4.0
        upper: float = 12.0
        steps: int = Field(default=16, ge=1)

    @classmethod
    def sample(cls) -> Sample:
        scores = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(5)) * 3
        return Sample(Node("y", cls.op, attrs={"groups": 1}), [scores.clamp(-4, 12)])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return price.ltz(2 * n) + price.mul(n) + 2 * self.params.steps * price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        s = self._clipped(inputs[0])
        mask = causal_mask(*s.size()[-2:], node.attrs["groups"])
        y, seen = s * 0 + mask / mask.sum(-1, keepdim=True), mask.long()
        for _ in range(self.params.steps):
            y = y + (s - (s * y).sum(-1, keepdim=True)) * y * (1 / self.params.steps)
            y.share = y.share * seen  # else truncation leaves units of the last bit in hidden keys
        return y

    def _clipped(self, s: Any) -> Any:
        """Both comparisons at once; bits times public bounds are local, so that one product is left."""
        crypten = import_crypten()
        bits = bits_of(s)
        lower, upper = (round(bound * 2**bits) for bound in (self.params.lower, self.params.upper))
        outside = crypten.stack([s - self.params.lower, self.params.upper - s])._ltz()
        below, above = outside[0], outside[1]
        return s * (1 - below - above) + wrap(below.share * lower + above.share * upper, bits)


OPERATORS = (SwiGLU, Softmax)
