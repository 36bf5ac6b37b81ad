# The harness as an image that works through the host's Docker engine:
#
#   docker build -t aem-harness .
#   docker run --rm -v /var/run/docker.sock:/var/run/docker.sock -v "$PWD/results:/work/results" aem-harness \
#     run --agent gold --set sample
#
# Where no registry is reached, any local image with Python 3.11 or newer and pip will do: --build-arg BASE=...
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /opt/aem
COPY pyproject.toml requirements.lock README.md LICENSE cli.py ./
COPY src src
COPY api api
COPY commands commands
COPY harness harness
COPY agents agents
COPY aem_checkpoints aem_checkpoints
COPY training training
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --quiet --constraint requirements.lock . \
 && ln -s /opt/venv/bin/aem /usr/local/bin/aem
WORKDIR /work
ENTRYPOINT ["aem"]
CMD ["--help"]
