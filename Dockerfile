# The page in a container: docker build -t aim . && docker run -p 7860:7860 aim
# On a GPU: docker build --build-arg TORCH_INDEX=<index of PyTorch's CUDA wheels> -t aim . && docker run --gpus all -p 7860:7860 aim
FROM python:3.12-slim

# Where torch comes from; empty is pip's default, whose Linux wheels bring CUDA.
ARG TORCH_INDEX=""
# A compiler: Triton builds its launcher with it, on a GPU.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 aim && install --directory --owner aim /srv/models
WORKDIR /srv/aim
COPY requirements.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement requirements.txt "httptools>=0.6,<1" "uvloop>=0.21,<1"
COPY --chown=aim app.py ./
COPY --chown=aim aim ./aim
COPY --chown=aim checkpoints ./checkpoints
USER aim
ENV HF_HOME=/srv/models GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"
CMD ["python", "app.py"]
