# syntax=docker/dockerfile:1
# Two images, for amd64 and arm64, without shell and package manager, as uid 65532:
#   receiver   the receiver and the backend: `forwarder` with what it needs
#   sidecar    the same with Fluent Bit, for beside a kube-apiserver
#
#   make image                                  # both, for this machine
#   docker buildx build --platform linux/amd64,linux/arm64 --target receiver --push -t REGISTRY/friction-forwarder:0.1.0 .
#
# Everything it starts from is an argument. For a build that can be repeated, give digests:
#   --build-arg RUNTIME_IMAGE=gcr.io/distroless/cc-debian13@sha256:…
# Python packages are pinned with their hashes in image/ (`make image-lock` renews them).
ARG BUILD_IMAGE=docker.io/library/python:3.13-slim-trixie
ARG UV_IMAGE=ghcr.io/astral-sh/uv:0.13.8
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian13:nonroot
ARG FLUENT_BIT_IMAGE=cr.fluentbit.io/fluent/fluent-bit:5.1.1

FROM ${UV_IMAGE} AS uv

# A Python that needs nothing but glibc, so that the same folder runs in both final images.
FROM ${BUILD_IMAGE} AS python
ARG PYTHON_VERSION=3.13.18
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_INSTALL_DIR=/pythons
RUN uv python install "${PYTHON_VERSION}" \
 && program="$(realpath "$(uv python find --managed-python "${PYTHON_VERSION}")")" \
 && mv "$(dirname "$(dirname "${program}")")" /python \
 && rm -rf /python/include /python/share /python/bin/pip* /python/bin/idle* /python/bin/pydoc* \
    /python/lib/python3*/site-packages/pip* /python/lib/python3*/ensurepip /python/lib/python3*/idlelib \
    /python/lib/python3*/test /python/lib/python3*/tkinter /python/lib/python3*/turtledemo \
    /python/lib/tcl* /python/lib/tk* /python/lib/itcl* /python/lib/thread*
ENV UV_PYTHON=/python/bin/python3 UV_BREAK_SYSTEM_PACKAGES=1

FROM python AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY forwarder forwarder
COPY rules rules
COPY fluent-bit fluent-bit
COPY deploy deploy
RUN uv build --wheel --out-dir /dist

# Packages first: they change less often than the program.
FROM python AS receiver-python
COPY image/receiver.txt /requirements.txt
RUN uv pip install --require-hashes --no-deps --only-binary :all: -r /requirements.txt
COPY --from=wheel /dist /dist
RUN uv pip install --no-deps /dist/*.whl && /python/bin/forwarder version

FROM python AS sidecar-python
COPY image/sidecar.txt /requirements.txt
RUN uv pip install --require-hashes --no-deps --only-binary :all: -r /requirements.txt
COPY --from=wheel /dist /dist
RUN uv pip install --no-deps /dist/*.whl && /python/bin/forwarder version

FROM ${FLUENT_BIT_IMAGE} AS sidecar
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="friction-forwarder sidecar" \
      org.opencontainers.image.description="Fluent Bit and what keeps it running beside a kube-apiserver" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=sidecar-python /python /python
ENV PATH=/python/bin:/fluent-bit/bin PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/python/bin/forwarder"]
CMD ["sidecar"]

FROM ${RUNTIME_IMAGE} AS receiver
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="friction-forwarder" \
      org.opencontainers.image.description="Finds the moments when people go around the platform of a Kubernetes cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=receiver-python /python /python
ENV PATH=/python/bin PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /
EXPOSE 24224 8000 9000
ENTRYPOINT ["/python/bin/forwarder"]
CMD ["--help"]
