FROM python:3.11-slim

# OpenCV and OpenVINO load these; a slim image has none of them. KubeRay's probes call wget.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libgomp1 wget \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 percipio
WORKDIR /app

# The libraries change seldom, the code often: they come first, and stay cached. Which torch is built
# in: constraints-cpu.txt takes the tested version, constraints.txt the newest one; PIP_OPTIONS may
# name the index that has a smaller CPU build.
ARG CONSTRAINTS=constraints-cpu.txt
ARG PIP_OPTIONS=""
# [ray] for docs/ray.md
ARG EXTRAS=""
COPY pyproject.toml constraints.txt constraints-cpu.txt README.md LICENSE ./
RUN mkdir pipeline workers && touch pipeline/__init__.py workers/__init__.py \
 && pip install --no-cache-dir $PIP_OPTIONS --constraint "$CONSTRAINTS" ".$EXTRAS" \
 && pip uninstall --yes percipio && rm -r pipeline workers

COPY pipeline pipeline
COPY workers workers
RUN pip install --no-cache-dir --no-deps .

USER percipio
RUN mkdir --parents /home/percipio/.cache/percipio
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["percipio"]
CMD ["--help"]
