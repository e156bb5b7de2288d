"""The benchmarks' layers under SecretFlow's SPU, for comparison: its semi2k protocol, two parties.

SPU wants older packages than mpcbench, so it gets an environment of its own:

    python3.11 -m venv spu && spu/bin/pip install spu==0.9.5
    spu/bin/python tests/benchmarks/secretflow.py > results/layers/secretflow.md

Both parties are threads of one process. Bytes are those of SPU's own profile, which counts payload by party;
*sends* are its send actions, several of which can share a round. semi2k takes correlated randomness from
a trusted first party by default, at no bytes: its offline phase is not measured by this.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

TOKENS, WIDTH, CHANNELS, HEADS = 32, 576, 1536, 9
FRACTION_BITS = 16
LINK = re.compile(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)")
TIME = re.compile(r"execution took ([\d.e-]+)s")
ERROR = re.compile(r"error ([\d.e-]+)")
NAMES = ("SwiGLU MLP", "quadratic MLP", "causal softmax", "RMSNorm")


def work(name: str) -> tuple[Callable, list]:
    """A function of JAX and its inputs, all of which are secret."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    random = np.random.default_rng(0)

    def normal(*shape: int, fan_in: int = 1) -> np.ndarray:
        return random.standard_normal(shape) / fan_in**0.5

    if name == "causal softmax":
        mask = np.triu(np.full((TOKENS, TOKENS), -64.0), 1)
        return lambda s: jax.nn.softmax(s + mask, axis=-1), [3 * normal(HEADS, TOKENS, TOKENS)]
    x = normal(TOKENS, WIDTH)
    if name == "RMSNorm":
        return lambda x: x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5), [x]
    gate, up = normal(WIDTH, CHANNELS, fan_in=WIDTH), normal(WIDTH, CHANNELS, fan_in=WIDTH)
    inputs = [x, gate, up, normal(CHANNELS, WIDTH, fan_in=CHANNELS)]
    if name == "SwiGLU MLP":
        return lambda x, g, u, d: (jax.nn.silu(x @ g) * (x @ u)) @ d, inputs
    rows = [normal(CHANNELS) / 5 for _ in range(3)]

    def quadratic(x, g, u, d, c, b, a):
        h = x @ g
        return (((a * h + b) * h + c) * (x @ u)) @ d

    return quadratic, [*inputs, *rows]


def run(name: str) -> None:
    """One layer in this process; SPU prints its profile."""
    import numpy as np
    from spu import libspu
    from spu.utils import simulation

    config = libspu.RuntimeConfig()
    config.protocol, config.field = libspu.ProtocolKind.SEMI2K, libspu.FieldType.FM64
    config.fxp_fraction_bits, config.enable_pphlo_profile = FRACTION_BITS, True
    function, inputs = work(name)
    found = simulation.sim_jax(simulation.Simulator(2, config), function)(*inputs)
    expected = np.asarray(function(*inputs))
    print(f"error {np.sqrt(np.mean((found - expected) ** 2)):.3e}", flush=True)


def main() -> None:
    """The table, in Markdown."""
    from importlib.metadata import version

    print(f"SPU {version('spu')}, semi2k, {FRACTION_BITS} fraction bits, 32 tokens; both parties together.\n")
    print("| work | online MB | sends of a party | ms | error |\n|:---|---:|---:|---:|---:|")
    for name in NAMES:
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        output = done.stdout + done.stderr
        sent, sends = LINK.search(output).groups()
        seconds, error = TIME.search(output)[1], ERROR.search(output)[1]
        row = (name, f"{2 * int(sent) / 1e6:.3f}", sends, f"{1e3 * float(seconds):.0f}", error)
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run(sys.argv[1]) if len(sys.argv) > 1 else main()
