"""mpcbench: what Llama layers cost under two-party computation, and what accuracy that takes."""

__version__ = "0.1.0"
