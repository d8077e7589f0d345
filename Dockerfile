# posepipe as a BIDS App: no atlas inside (mount them at /atlases), no network needed when it runs.
#
#   docker build -t posepipe --build-arg TORCH_INDEX_URL=<index of the CPU builds of torch> .
#   docker run --rm --network none --user "$(id -u):$(id -g)" \
#       -v "$BIDS_DIR":/data:ro -v "$OUT_DIR":/out -v "$ATLASES":/atlases:ro posepipe /data /out participant
FROM python:3.11-slim

# Without TORCH_INDEX_URL this is the build with CUDA, which runs on a CPU as well but is some ten times as large
ARG TORCH_INDEX_URL
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch==2.13.0

COPY . /src
RUN pip install --no-cache-dir /src

# Whatever user the container runs as can write its caches and its home
ENV HOME=/home/posepipe \
    XDG_CACHE_HOME=/home/posepipe/.cache \
    MPLCONFIGDIR=/home/posepipe/.cache/matplotlib \
    POSEPIPE_ATLAS_PATH=/atlases
RUN useradd --create-home posepipe \
    && mkdir -p /atlases /home/posepipe/.cache \
    && chmod -R 777 /home/posepipe
USER posepipe
WORKDIR /home/posepipe

ENTRYPOINT ["posepipe"]
