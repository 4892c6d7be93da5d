# syntax=docker/dockerfile:1
# One image for every process: the core's roles, each rail's adapter, the simulators and the jobs.

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python -m venv /opt/fleet
WORKDIR /src
# The requirements change rarely, the source often: this layer outlives it.
COPY requirements/run.txt requirements/run.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/fleet/bin/pip install --require-hashes -r requirements/run.txt
COPY . .
# The locked set carries the build backend, so nothing is fetched that has no hash.
RUN /opt/fleet/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/fleet/bin/python -m compileall -q /opt/fleet/lib \
    && /opt/fleet/bin/pip uninstall -q -y setuptools wheel pip

# The bank of the sandbox, a program that nobody here wrote: in an image of its own.
FROM build AS sandbox
COPY requirements/sandbox.txt requirements/sandbox.txt
RUN python -m venv --without-pip /opt/sandbox \
    && python -m pip --python /opt/sandbox/bin/python install --no-cache-dir --require-hashes -r requirements/sandbox.txt

FROM python:3.11.13-slim-bookworm AS mock-bank
RUN groupadd --gid 10001 fleet \
    && useradd --uid 10001 --gid fleet --no-create-home --shell /usr/sbin/nologin fleet \
    && install -d -o fleet -g fleet /var/lib/fleet
COPY --from=sandbox /opt/sandbox /opt/sandbox
# The one module of ours in it: what gives a payment a behaviour. It needs mock-bank alone.
COPY fleet/stack/scripted_bank.py /opt/sandbox/lib/python3.11/site-packages/fleet/stack/
ENV PATH=/opt/sandbox/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/fleet
CMD ["python", "-m", "fleet.stack.scripted_bank", "--host", "0.0.0.0"]

FROM python:3.11.13-slim-bookworm AS fleet
LABEL org.opencontainers.image.title="psp-fleet" \
      org.opencontainers.image.description="A payment core with a double-entry ledger and a fleet of payment-rail adapters"
ENV PATH=/opt/fleet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A simulator keeps its book here, in a volume that takes over the owner of this directory.
RUN groupadd --gid 10001 fleet \
    && useradd --uid 10001 --gid fleet --no-create-home --shell /usr/sbin/nologin fleet \
    && install -d -o fleet -g fleet /var/lib/fleet
COPY --from=build /opt/fleet /opt/fleet
USER 10001:10001
WORKDIR /var/lib/fleet
# Every process ends in order on SIGTERM; which one it is, the command says.
CMD ["python", "-m", "core", "all"]
