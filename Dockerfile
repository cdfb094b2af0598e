# Build: a virtual environment with the program and its dependencies.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY watcher ./watcher
COPY migrations ./migrations
RUN python3 -m venv /opt/watcher
RUN /opt/watcher/bin/pip install --no-cache-dir '/src[postgres]'

# Run: nothing but that, as a user without rights, with one writable folder.
FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="Fragalysis Watcher" \
      org.opencontainers.image.description="Watches Fragalysis and buys each compound's Molecule.one score exactly once" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/watcher watcher
COPY --from=build /opt/watcher /opt/watcher
ENV PATH=/opt/watcher/bin:$PATH PYTHONUNBUFFERED=1
USER watcher
WORKDIR /var/lib/watcher
VOLUME /var/lib/watcher
STOPSIGNAL SIGTERM
ENTRYPOINT ["watcher"]
CMD ["run"]
