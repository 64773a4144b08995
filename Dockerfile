# One image for every role: the controller and the driver need no extras, a learner may (see docker-compose.yml).
#
#   docker build -t metisfl-rest .
#   docker build -t metisfl-rest-learner --build-arg EXTRAS=torch .
#
# BASE may be any Debian-like image with Python >= 3.11, venv and pip.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Names of optional dependencies, separated by commas: torch, vision, sklearn, redis.
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# What the project needs comes before what it is: a change of the source does not install the dependencies again.
COPY requirements requirements/
RUN python -m venv /opt/builder && /opt/builder/bin/pip install --require-hashes -r requirements/build.txt \
 && python -m venv /opt/metis && /opt/metis/bin/pip install --require-hashes -r requirements/base.txt \
    $(echo "${EXTRAS}" | tr , '\n' | sed -n 's|..*|-r requirements/&.txt|p')
# Of what the extras need only torch and its like is not there yet: no lock holds them (docs/decisions/0019-locks.md).
COPY pyproject.toml ./
RUN python -c "import sys, tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*(need for name in sys.argv[1].split(',') if name for need in extras[name]), sep='\n')" "${EXTRAS}" > extras.txt \
 && if [ -n "${EXTRAS}" ]; then /opt/metis/bin/pip install -r extras.txt; fi
COPY README.md LICENSE ./
COPY docs/protocol.md docs/
COPY services services/
COPY controller_api controller_api/
COPY learner_agent learner_agent/
COPY driver_cli driver_cli/
# The wheel is installed, as a user would have it: a file missing from it is missing here.
RUN /opt/builder/bin/hatchling build -t wheel -d /wheel && /opt/metis/bin/pip install --no-deps /wheel/*.whl

FROM ${BASE}
# The folders belong to the user who runs in the image: a fresh named volume takes owner and mode from them.
RUN groupadd --gid 10001 metis \
 && useradd --uid 10001 --gid metis --no-create-home --home-dir /tmp --shell /usr/sbin/nologin metis \
 && install -d -m 700 -o metis -g metis /data /state /results /tokens/enroll /tokens/operator
COPY --from=build /opt/metis /opt/metis
WORKDIR /app
COPY federation.toml ./
ENV PATH=/opt/metis/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
CMD ["metis-controller"]
