# For CPUs:         docker build -t autocrossdim .
# For NVIDIA GPUs:  docker build -t autocrossdim --build-arg TORCH=cu126 .
# How to run it:    docs/how-to/docker.md
FROM python:3.11-slim

# Name of the directory of PyTorch builds: cpu, cu126, cu128, ...
ARG TORCH=cpu

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY autocrossdim autocrossdim
COPY planners planners
COPY trainers trainers
RUN pip install --no-cache-dir "torch>=2.10" "torchvision>=0.25" --index-url "https://download.pytorch.org/whl/${TORCH}" \
    && pip install --no-cache-dir . \
    && rm -rf /src

# The user is chosen by `docker run --user` and has no home directory.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["autocrossdim"]
CMD ["--help"]
