# qyolo with NVIDIA's TensorRT, for GPUs that docker/gpu.Dockerfile does not cover, such as H100, and
# for int8 on a T4. For amd64 and arm64 servers, but not for Jetson boards, whose TensorRT is part of
# their system.
#
#   docker build -f docker/tensorrt.Dockerfile -t qyolo:tensorrt .
#
# TensorRT and CUDA come from NVIDIA's image: 25.06 has TensorRT 10.11, CUDA 12.9 and Python 3.12.
# Later ones have CUDA 13, which older drivers do not run. NVIDIA made it for development with
# TensorRT, so it contains compilers and most of the gigabytes.

ARG TENSORRT=25.06-py3

FROM nvcr.io/nvidia/tensorrt:${TENSORRT} AS packages
# NVIDIA's constraints are for its own packages; the lock file has the versions of ours.
ENV PIP_CONSTRAINT= \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The module tensorrt is in NVIDIA's system packages.
RUN python3 -m venv --without-pip --system-site-packages /opt/qyolo \
    && python3 -m venv --without-pip /build/tools
COPY requirements/tensorrt.lock requirements/build.lock requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/qyolo/bin/python install --ignore-installed --require-hashes \
        --only-binary :all: -r requirements/tensorrt.lock \
    && python3 -m pip --python /build/tools/bin/python install --require-hashes \
        --only-binary :all: -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY qyolo qyolo
COPY quantizer quantizer
COPY service service
COPY zoo zoo
RUN python3 -m pip --python /build/tools/bin/python wheel --no-deps --no-index \
        --no-build-isolation --wheel-dir dist . \
    && python3 -m pip --python /opt/qyolo/bin/python install --no-deps --no-index dist/*.whl

FROM nvcr.io/nvidia/tensorrt:${TENSORRT}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qyolo (TensorRT)" \
      org.opencontainers.image.description="A float YOLO detector in, an int8 engine for this machine out, served over REST" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV HOME=/var/cache/qyolo \
    ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/qyolo/bin:$PATH \
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
