# syntax=docker/dockerfile:1
# One image for API, worker and migrations: `docker build -t longhaul .`, then `docker run longhaul api`.
ARG PYTHON=python:3.13.7-slim-bookworm@sha256:adafcc17694d715c905b4c7bebd96907a1fd5cf183395f0ebc4d3428bd22d92d
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# Some locked packages have no wheel for every platform; the compiler stays in this stage.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock .
RUN python -m venv /app/.venv && /app/.venv/bin/pip install --require-hashes -r requirements.lock

# The chat page. Node comes from a wheel; nothing of this stage but the built files is in the image.
FROM ${PYTHON} AS page
WORKDIR /app
COPY requirements-dev.lock .
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && python -m venv .venv && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements-dev.lock
COPY scripts/build_page.py scripts/build_page.py
COPY web web
RUN .venv/bin/python -m scripts.build_page

FROM ${PYTHON}
ENV PATH=/app/.venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LONGHAUL_HOME=/data
RUN useradd --system --uid 10001 --home-dir /data --create-home longhaul
COPY --from=build /app/.venv /app/.venv
COPY . /app
COPY --from=page /app/web/dist /app/web/dist
# Not in the application's folder, so that nothing there can be written and a stray `.env` is not read.
WORKDIR /data
USER longhaul
VOLUME /data
EXPOSE 8700
ENTRYPOINT ["python", "-P", "-m", "cli"]
CMD ["api"]
