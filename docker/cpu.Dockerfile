# qyolo on the processor (OpenVINO), for amd64 and arm64.
#
#   docker build -f docker/cpu.Dockerfile -t qyolo:cpu .
#
# With an Intel GPU beside it, on amd64 (docs/how-to/intel-gpu.md):
#
#   docker build -f docker/cpu.Dockerfile -t qyolo:intel --build-arg DEVICE=intel-gpu \
#       --build-arg DRIVER="intel-opencl-icd libze1" .
#
# For `qyolo watch` alone, without an engine (docs/how-to/camera.md):
#
#   docker build -f docker/cpu.Dockerfile -t qyolo:camera --build-arg LOCK=camera .
#
# Another package index: --secret id=pip,src=pip.conf. It is mounted while packages are installed and
# is in no layer. docs/how-to/containers.md describes the image and its tests.

# The Python that `make test` runs on.
ARG PYTHON=3.11-slim-bookworm
# Debian's packages of the driver of an Intel GPU; empty: OpenVINO's plugins for it are removed.
ARG DRIVER=
# The lock file of its packages, in requirements/.
ARG LOCK=cpu

FROM python:${PYTHON} AS packages
ARG DRIVER
ARG LOCK
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/qyolo \
    && python -m venv --without-pip /build/tools
COPY requirements/${LOCK}.lock requirements/build.lock requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/qyolo/bin/python install --require-hashes --only-binary :all: \
        -r "requirements/${LOCK}.lock" \
    && pip --python /build/tools/bin/python install --require-hashes --only-binary :all: \
        -r requirements/build.lock
# Remove what is never loaded here: the packages' tests and, without a driver, OpenVINO's plugins for
# Intel's GPUs and NPUs. Remove OpenVINO's telemetry, without which it works.
RUN packages=$(echo /opt/qyolo/lib/python3.*/site-packages) \
    && rm -rf "$packages/openvino_telemetry" \
    && if [ -z "$DRIVER" ]; then \
        rm -f "$packages/openvino/libs/libopenvino_intel_gpu_plugin.so" \
            "$packages/openvino/libs/libopenvino_intel_npu_plugin.so" \
            "$packages/openvino/libs/cache.json"; \
    fi \
    && find "$packages/numpy" "$packages/matplotlib" -type d -name tests -prune -exec rm -r {} +
COPY pyproject.toml README.md LICENSE ./
COPY qyolo qyolo
COPY quantizer quantizer
COPY service service
COPY zoo zoo
RUN pip --python /build/tools/bin/python wheel --no-deps --no-index --no-build-isolation \
        --wheel-dir dist . \
    && pip --python /opt/qyolo/bin/python install --no-deps --no-index dist/*.whl

FROM python:${PYTHON}
ARG DRIVER
ARG DEVICE=auto
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qyolo" \
      org.opencontainers.image.description="A float YOLO detector in, an int8 engine for this machine out, served over REST" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Libraries keep small caches in HOME. The image contains the bytecode; none can be written.
ENV HOME=/var/cache/qyolo \
    ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/qyolo/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    QYOLO_CACHE_DIR=/var/cache/qyolo \
    QYOLO_DEVICE=${DEVICE} \
    QYOLO_HOST=0.0.0.0
RUN if [ -n "$DRIVER" ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends $DRIVER \
        && rm -rf /var/lib/apt/lists/*; \
    fi
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
