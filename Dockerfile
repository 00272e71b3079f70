# Two stages: the first downloads exactly what requirements.lock names, by hash; the second
# has Python, Turnout and what it needs at run time, and nothing to build with.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --require-hashes --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY proxy proxy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/turnout \
 && /opt/turnout/bin/pip install --no-cache-dir --no-index --find-links /wheels turnout

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/turnout --create-home turnout
COPY --from=build /opt/turnout /opt/turnout
COPY config/turnout.yaml /etc/turnout/turnout.yaml
ENV PATH=/opt/turnout/bin:$PATH PYTHONUNBUFFERED=1
# Relative paths of the configuration, such as `state: var/turnout`, begin here: mount a volume.
WORKDIR /var/lib/turnout
USER 10001
EXPOSE 8080 9900
# Give `docker stop` more time than `shutdown_timeout`: docker stop -t 40.
STOPSIGNAL SIGTERM
# For the admin address of the configuration above; say so here if yours is another.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD \
  ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9900/healthz', timeout=2)"]
ENTRYPOINT ["turnout"]
# Mount the directory /etc/turnout, not the single file: a swapped file would not be seen.
CMD ["run", "/etc/turnout/turnout.yaml"]
