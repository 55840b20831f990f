# segfw on a CPU. In the folder of a clone:
#   docker build -f containers/cpu.Dockerfile -t segfw:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD":/data segfw:cpu run RAW WORK
# It differs from cuda.Dockerfile in TORCH_INDEX and in what is said of a GPU.
FROM python:3.12-slim-bookworm

# PyTorch without CUDA, which is several GB less
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# torch.compile makes C++, for which it takes the system's compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/segfw
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY segfw segfw
RUN python -m pip install --no-cache-dir -c constraints.txt .

# Whoever it runs as may write there: caches of compilers and fonts.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["segfw"]
CMD ["--help"]
