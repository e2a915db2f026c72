# One image for the four services. Which of them a container is, its command says:
#   docker run headrace processors --broker ... --store ...
# BASE is any Debian image with Python 3.11 or later and pip.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# For registries other than the public ones: --build-arg PIP_INDEX_URL=... ; none of it stays in the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements-image.lock requirements-build.lock ./
RUN python3 -m venv /opt/headrace \
    && /opt/headrace/bin/pip install --quiet --require-hashes -r requirements-image.lock \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --require-hashes -r requirements-build.lock
COPY . .
# What is only for compiling against these libraries, or for testing them, is half a hundred megabytes.
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/wheels . \
    && /opt/headrace/bin/pip install --quiet --no-deps /build/wheels/headrace-*.whl \
    && /opt/headrace/bin/pip uninstall --quiet --yes pip setuptools \
    && cd /opt/headrace/lib/python3*/site-packages \
    && rm -rf pyarrow/include pyarrow/tests pyarrow/*.pyx pyarrow/*.pxd \
    && find numpy -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE}
LABEL org.opencontainers.image.title="headrace" org.opencontainers.image.licenses="Apache-2.0"
# The folder is made here, so that a volume put on it belongs to the user that writes there.
RUN groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid headrace --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin headrace \
    && install -d -o headrace -g headrace /data
COPY --from=build /opt/headrace /opt/headrace
COPY pipeline.toml /app/
COPY data /app/data
WORKDIR /app
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HEADRACE_PIPELINE=/app/pipeline.toml HEADRACE_DATA=/data HEADRACE_STORE=sqlite:////data/store.db
USER headrace
VOLUME /data
EXPOSE 8081
STOPSIGNAL SIGTERM
# Whether this container can do its work: its pipeline file is sound and its broker answers. The viewer, which asks no
# broker, has a check of its own in docker-compose.yml.
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 CMD ["headrace", "topics"]
ENTRYPOINT ["headrace"]
CMD ["check"]
