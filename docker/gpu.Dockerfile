# qyolo on an NVIDIA GPU (TensorRT for RTX), for amd64 and arm64. It needs the driver of the host, 580 or
# newer, and builds for a GPU elsewhere without one: qyolo build --device gpu --target sm89.
#
#   docker build -f docker/gpu.Dockerfile -t qyolo:gpu .
#
# Another package index: --secret id=pip,src=pip.conf. It is mounted while packages are installed and
# is in no layer. docs/how-to/containers.md describes the image and its tests.

# The Python that `make test` runs on.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/qyolo \
    && python -m venv --without-pip /build/tools
COPY requirements/gpu.lock requirements/build.lock requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/qyolo/bin/python install --require-hashes --only-binary :all: \
        -r requirements/gpu.lock \
    && pip --python /build/tools/bin/python install --require-hashes --only-binary :all: \
        -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY qyolo qyolo
COPY quantizer quantizer
COPY service service
COPY zoo zoo
RUN pip --python /build/tools/bin/python wheel --no-deps --no-index --no-build-isolation \
        --wheel-dir dist . \
    && pip --python /opt/qyolo/bin/python install --no-deps --no-index dist/*.whl

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qyolo (TensorRT for RTX)" \
      org.opencontainers.image.description="A float YOLO detector in, an int8 engine for this machine out, served over REST" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Libraries keep small caches in HOME. The image contains the bytecode; none can be written.
ENV HOME=/var/cache/qyolo \
    ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/qyolo/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONDONTWRITEBYTECODE=1 \
    QYOLO_CACHE_DIR=/var/cache/qyolo \
    QYOLO_DEVICE=gpu \
    QYOLO_HOST=0.0.0.0
RUN useradd --uid 10001 --home-dir /var/cache/qyolo --no-create-home --shell /usr/sbin/nologin qyolo \
    && install -d -o qyolo -g qyolo /var/cache/qyolo
COPY --from=packages /opt/qyolo /opt/qyolo
COPY docker/probe.py /opt/qyolo/probe.py
USER 10001:10001
WORKDIR /var/cache/qyolo
VOLUME /var/cache/qyolo
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "/opt/qyolo/probe.py", "/healthz"]
ENTRYPOINT ["qyolo"]
CMD ["up"]
