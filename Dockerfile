# syntax=docker/dockerfile:1
# Vitrine for pods of Ray. Targets: `cpu` (the demo's weights are in it), `gpu`, and `gpu-with-weights`, which downloads
# the checkpoints of serve_config.yaml while it is built and afterwards needs neither the hub nor a volume of weights.
#   docker build --target gpu --tag registry.example/vitrine:0.1.0-gpu .
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /opt/vitrine/app
COPY constraints.txt ./
RUN pip install --no-cache-dir "uv==$(sed -n 's/^uv==//p' constraints.txt)" \
    && uv venv /opt/vitrine/venv
ENV PATH=/opt/vitrine/venv/bin:$PATH
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY core core
COPY models models
COPY catalog catalog
COPY milvus milvus
COPY deployments deployments
COPY jobs jobs
COPY vitrine vitrine
COPY demo demo
# An index of PyTorch's own leaves out CUDA for the target `cpu`, which is some 5 GB smaller then. It holds some versions
# of other packages too. By default uv would look for these there alone, and not find the pinned ones.
ARG TORCH_INDEX=""
ARG STORES=s3,gcs,azure
# Editable: pods import the application from where it lies, with the files beside its modules.
RUN uv pip install --no-cache --compile-bytecode --python /opt/vitrine/venv/bin/python \
        ${TORCH_INDEX:+--index "$TORCH_INDEX" --index-strategy unsafe-best-match} --constraint constraints.txt --editable ".[server,${STORES}]"
# The HAProxy that Ray brings, without splicing: see docs/authentication.md.
RUN mkdir /opt/vitrine/bin \
    && python -c "from pathlib import Path; from deployments.proxy.haproxy import write_launcher; write_launcher(Path('/opt/vitrine/bin'))"

FROM build AS weights
ENV HF_HOME=/weights
RUN hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K --include '*.json' --include '*.txt' --include open_clip_model.safetensors \
    && hf download facebook/dinov2-large --include '*.json' --include '*.safetensors' \
    && hf download Salesforce/blip2-itm-vit-g --include '*.json' --include '*.txt' --include '*.safetensors'

FROM python:${PYTHON} AS runtime
# KubeRay calls bash and wget in the pods; a login shell would forget the path. `vitrine backup` calls pg_dump, which
# must not be older than the server: from PostgreSQL's own packages, for Debian's stay behind.
ARG POSTGRESQL=18
# hadolint ignore=DL3008,SC2016
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates wget postgresql-common \
    && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y \
    && apt-get install --yes --no-install-recommends "postgresql-client-${POSTGRESQL}" \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 vitrine \
    && useradd --uid 10001 --gid vitrine --create-home --home-dir /home/vitrine --shell /bin/bash vitrine \
    && echo 'PATH=/opt/vitrine/venv/bin:$PATH' > /etc/profile.d/vitrine.sh
COPY --from=build /opt/vitrine /opt/vitrine
COPY serve_config.yaml /opt/vitrine/app/
COPY compose/serve_config.yaml /opt/vitrine/app/compose/
WORKDIR /opt/vitrine/app
ENV PATH=/opt/vitrine/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/vitrine \
    HF_HOME=/weights \
    HF_HUB_OFFLINE=1 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/vitrine/bin/haproxy \
    RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response" \
    RAY_SERVE_HAPROXY_RETRIES=6 \
    RAY_SERVE_HAPROXY_TUNE_BUFSIZE=262144
EXPOSE 8000
CMD ["vitrine", "--help"]

FROM runtime AS cpu
USER 10001:10001

FROM runtime AS gpu
# `compile: true` has Triton build a module in C when an encoder starts. What is compiled lies in a folder for a volume.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=vitrine --group=vitrine /home/vitrine/compiled
USER 10001:10001
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TORCHINDUCTOR_CACHE_DIR=/home/vitrine/compiled/inductor \
    TRITON_CACHE_DIR=/home/vitrine/compiled/triton

FROM gpu AS gpu-with-weights
COPY --from=weights /weights /weights
