# An image of Fragalysis Watcher. docs/howto/container.md says how to build and run it.
#
# The base is pinned to a patch release. To pin it to the byte, add the digest that
#   docker buildx imagetools inspect python:3.13.16-slim-bookworm
# shows: --build-arg BASE=python:3.13.16-slim-bookworm@sha256:...
ARG BASE=python:3.13.16-slim-bookworm

# Build: a virtual environment with the program and its dependencies.
FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The dependencies are a layer of their own, so that a change of the source does not fetch them again.
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["postgres"], sep="\n")' > requirements.txt \
 && python3 -m venv /opt/watcher \
 && /opt/watcher/bin/pip install --requirement requirements.txt
COPY README.md LICENSE ./
COPY watcher ./watcher
COPY migrations ./migrations
# pip compiles what it installs; nothing is installed afterwards, so pip goes.
RUN /opt/watcher/bin/pip install --no-deps . \
 && /opt/watcher/bin/pip uninstall --yes pip setuptools

# Run: nothing but that, as a user without rights, with one folder to write to.
FROM ${BASE}
# The base comes without compiled modules, and a read-only root could never keep them: every health check would compile.
RUN python3 -m compileall -q -x '/(tests?|(site|dist)-packages)/' "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')" \
 && groupadd --gid 10001 watcher \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/watcher --no-create-home --shell /usr/sbin/nologin watcher \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/watcher
COPY --from=build /opt/watcher /opt/watcher
ENV PATH=/opt/watcher/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/watcher
VOLUME /var/lib/watcher
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["watcher", "health"]
ENTRYPOINT ["watcher"]
CMD ["run"]
# Last, because they differ from build to build: --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=URL
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="Fragalysis Watcher" \
      org.opencontainers.image.description="Watches Fragalysis for new crystal structures and buys Molecule.one scores, no compound twice" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
