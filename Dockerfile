# A service on a CPU. docs/deploy.md says how to build and run it.
#
#   docker build -t llmft .                                      the model is mounted at /model
#   docker build -t llmft --build-arg MODEL=outputs/texts/RUN .  the model is part of the image
#   docker build -t llmft --build-arg ENGINE=torch .             also serves runs, and tasks that write
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG ENGINE=onnx
WORKDIR /src
RUN python -m venv /opt/llmft
ENV PATH=/opt/llmft/bin:$PATH
COPY constraints.txt deploy/requirements.txt ./
RUN if [ "$ENGINE" = onnx ]; then pip install --no-cache-dir -c constraints.txt -r requirements.txt; fi
COPY pyproject.toml README.md LICENSE ./
COPY llmft ./llmft
COPY configs ./configs
COPY recipes ./recipes
COPY docs ./docs
# The wheels of torch on PyPI bring 3 GB for GPUs; those of this index do not.
RUN if [ "$ENGINE" = onnx ]; then pip install --no-cache-dir --no-deps .; \
    else pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu ".[serve,export]"; fi

FROM python:${PYTHON}-slim
ARG MODEL=deploy/model
COPY --from=build /opt/llmft /opt/llmft
COPY ${MODEL} /model
# Nobody has this number's name or home; what a library wants to keep goes to /tmp.
ENV PATH=/opt/llmft/bin:$PATH HOME=/tmp HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --start-period=30s --interval=10s --timeout=3s \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
# Beyond loopback a key is required: LLMFT_API_KEY, or serve.key_file=FILE.
CMD ["llmft", "serve", "/model", "serve.host=0.0.0.0"]
