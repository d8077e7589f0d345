# posepipe as a BIDS App: weights inside, no atlas (mount them at /atlases), no network when it runs. What it needs is of the versions and hashes in requirements.lock.
#
#   docker build -t posepipe:VERSION --build-arg IMAGE=posepipe:VERSION --build-arg TORCH_INDEX_URL=<index of the CPU builds of torch> .
#   docker run --rm --network none --user "$(id -u):$(id -g)" \
#       -v "$BIDS_DIR":/data:ro -v "$OUT_DIR":/out -v "$ATLASES":/atlases:ro posepipe:VERSION /data /out participant
FROM python:3.11-slim AS build

# The lock has the CPU build of torch, which lies in an index of its own: with CUDA the image is some ten times as large
ARG TORCH_INDEX_URL
RUN test -n "$TORCH_INDEX_URL" || { echo "give the index of the CPU builds of torch: --build-arg TORCH_INDEX_URL=..." >&2; exit 1; }
RUN python -m venv /opt/posepipe
COPY requirements.lock /src/
RUN /opt/posepipe/bin/pip install --no-cache-dir --no-deps --require-hashes --extra-index-url "$TORCH_INDEX_URL" -r /src/requirements.lock
COPY . /src
RUN /opt/posepipe/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src

FROM python:3.11-slim
COPY --from=build /opt/posepipe /opt/posepipe

# Whatever user the container runs as can write its caches and its home
# Named in the dataset_description.json of what it makes: the name and the tag that the image is built under
ARG IMAGE=posepipe
ENV PATH=/opt/posepipe/bin:$PATH \
    POSEPIPE_IMAGE=$IMAGE \
    HOME=/home/posepipe \
    XDG_CACHE_HOME=/home/posepipe/.cache \
    MPLCONFIGDIR=/home/posepipe/.cache/matplotlib \
    POSEPIPE_ATLAS_PATH=/atlases
RUN useradd --create-home posepipe \
    && mkdir -p /atlases /home/posepipe/.cache \
    && chmod -R 777 /home/posepipe
USER posepipe
WORKDIR /home/posepipe

ENTRYPOINT ["posepipe"]
