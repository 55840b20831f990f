# segfw on NVIDIA's cards. In the folder of a clone:
#   docker build -f containers/cuda.Dockerfile -t segfw:cuda .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD":/data segfw:cuda run RAW WORK
# The host needs NVIDIA's driver and container toolkit; CUDA itself comes with PyTorch. It differs from cpu.Dockerfile in
# TORCH_INDEX and in what is said of a GPU.
FROM python:3.12-slim-bookworm

# PyTorch as pip brings it on Linux, with CUDA and Triton; an index of PyTorch's own for another version of CUDA
ARG TORCH_INDEX=

# torch.compile makes C++, and Triton a small C file for each kernel: both take the system's compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/segfw
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY segfw segfw
RUN python -m pip install --no-cache-dir -c constraints.txt .

# What the container toolkit brings in of the driver: computing, and nvidia-smi
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Whoever it runs as may write there: caches of compilers and fonts.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["segfw"]
CMD ["--help"]
