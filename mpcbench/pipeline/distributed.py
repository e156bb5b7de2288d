"""The record of a run whose parties were started one by one, as on several hosts, written at the client.

The client has neither the model nor its scores: what needs them (accuracy, agreement with plaintext) is
left out, and `mpcbench run` on the checkpoint measures it.
"""

from __future__ import annotations

from mpcbench.errors import UserError
from mpcbench.graph.decoding import prefix_length
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.parties.party import Job, Outcome
from mpcbench.pipeline.measure import Settings, record
from mpcbench.records.schema import ModelInfo, Record

PLAINTEXT = (
    "The parties talked in plaintext to other hosts (--insecure-no-tls): whoever is on the line can read "
    "and change what they send."
)
HOSTS = "hosts"
"""The link's profile when nothing is emulated and some process is on another host."""


def record_of_client(job: Job, prompt: str | None, outcome: Outcome, remote: bool, tls: bool) -> Record:
    """What the client knows of the run, as a record.

    Raises UserError when the share folder's graph has lost the facts about its model.
    """
    graph = SecureGraph.read(job.shares / "graph.json")
    try:
        info = ModelInfo.model_validate(graph.model)
    except ValueError:
        raise UserError(f"{job.shares} does not say which model it is of: export the model again.") from None
    settings = Settings(
        job.protocol.name, job.protocol, prompt or "", job.tokens, graph.embedding, job.repetitions,
        job.warmups, job.threads, network=job.network, fixed_seeds=outcome.results[1].fixed_seeds,
    )  # fmt: skip
    where = [HOSTS] if remote else ["by hand"]
    made = record(outcome, graph, info, settings, settings.key(info.checkpoint_sha256, [*where, tls]))
    made.link.encryption = "tls" if tls else "none"
    made.workload.cached = prefix_length(graph)
    if remote and not job.network.emulated:
        made.link.profile = HOSTS
    if remote and not tls:
        made.notes.append(PLAINTEXT)
    return made
