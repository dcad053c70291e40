"""Commands and options of Ollama, LM Studio, llama.cpp and vLLM, and what takes their place here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SERVE = "Write: modelyard serve MODEL"
_RUN = "Write: modelyard run MODEL"
_PULL = "Write: modelyard pull MODEL"
_SHOW = "Write: modelyard show MODEL, for a model of a running server, or modelyard resolve MODEL"
_DELETE = "Write: modelyard rm MODEL"
_CONFIG = "Models are described in a TOML file (docs/config.md): modelyard serve models.toml"

COMMANDS: Final[Mapping[str, str]] = {
    "get": f"{_PULL}.",
    "clone": f"{_PULL}.",
    "import": "Files are served where they are: modelyard serve FILE.gguf. A folder of them: modelyard init FOLDER.",
    "runtime": "llama.cpp is part of the installation: modelyard doctor shows its version and its devices.",
    "llama-cli": f"{_RUN} 'question'.",
    "download": f"{_PULL}.",
    "remove": f"{_DELETE}.",
    "delete": f"{_DELETE}.",
    "cp": "Give a model a second name with aliases in a TOML file (docs/config.md).",
    "create": f"A running server takes a Modelfile at /api/create (docs/adding-models.md). {_CONFIG}.",
    "info": f"{_SHOW}.",
    "inspect": f"{_SHOW}.",
    "start": f"{_SERVE}.",
    "up": f"{_SERVE}.",
    "server": "A server is started with modelyard serve MODEL, ended with modelyard stop, and shown by modelyard ps.",
    "daemon": "A server is started with modelyard serve MODEL, ended with modelyard stop, and shown by modelyard ps.",
    "api": f"{_SERVE}.",
    "llama-server": f"{_SERVE}.",
    "down": "Write: modelyard stop.",
    "chat": f"{_RUN}.",
    "cli": f"{_RUN}.",
    "ask": f"{_RUN} 'question'.",
    "generate": f"{_RUN} 'question'.",
    "complete": f"{_RUN} 'question'.",
    "embed": "Serve a model that embeds, and send texts to /v1/embeddings (docs/embeddings.md).",
    "push": "Upload with the hub's own command: hf upload.",
    "login": "Log in to the Hugging Face Hub with its own command: hf auth login.",
    "signin": "Log in to the Hugging Face Hub with its own command: hf auth login.",
    "convert": "serve converts safetensors by itself; to keep a file, write: modelyard quantize MODEL -o FILE.gguf.",
    "config": f"{_CONFIG}.",
    "status": "Write: modelyard ps.",
    "bench": "Measure a running server with a benchmark for OpenAI's API, such as vllm bench serve.",
    "update": "Update with pip: pip install --upgrade modelyard.",
    "upgrade": "Update with pip: pip install --upgrade modelyard.",
}
"""Command of another tool -> what to do here. Source: the help of ollama, lms, llama.cpp and docker compose."""

_CTX = "The context length is --ctx"
_LAYERS = "Layers on an accelerator are --device-layers; unset, all of them are there"
_SEQS = "The number of requests that are computed at the same time is --max-seqs"
_HUB = "Name the repository as the model, with the quantisation as its tag: org/name:Q4_K_M"
_ALIAS = "In a TOML file, write alias under [[models]]; on the command line, the id is the name of the file"
_TOML = "It is a key of the TOML file"
_CHAT = "Leave it out: modelyard run MODEL is a chat, and modelyard run MODEL 'question' answers once"
_MAX_TOKENS = "The limit of tokens in an answer is --max-tokens"
_QUESTION = "Write the question behind the model, or as --input TEXT"
_ALL = "Name the models. modelyard ps shows those that are loaded, modelyard list shows all"

OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("--ctx-size", "--num-ctx", "--n-ctx", "--context-length", "--context", "--max-model-len"), _CTX),
    **dict.fromkeys(("--max-seq-len", "--num_ctx", "--ctx_size"), _CTX),
    **dict.fromkeys(("-ngl", "--n-gpu-layers", "--gpu-layers", "--num-gpu", "--n_gpu_layers", "--gpu"), _LAYERS),
    **dict.fromkeys(("-np", "--parallel", "--n-parallel", "--max-num-seqs", "--num-parallel"), _SEQS),
    **dict.fromkeys(("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "--repo", "--hf"), _HUB),
    **dict.fromkeys(("-mu", "--model-url"), "Name the URL of the hub as the model"),
    **dict.fromkeys(("--alias", "-a", "--served-model-name", "--identifier", "--name"), _ALIAS),
    **dict.fromkeys(
        ("-t", "--threads", "-tb", "--threads-batch"),
        "Engines use all cores that the process may use: choose them with taskset or a container's cpuset",
    ),
    **dict.fromkeys(("-fa", "--flash-attn"), f"{_TOML}: flash_attn under [runtime]; unset, it is used where it can be"),
    **dict.fromkeys(("-ctk", "-ctv", "--cache-type-k", "--cache-type-v"), f"{_TOML}: kv_type under [runtime]"),
    **dict.fromkeys(("-b", "-ub", "--batch-size", "--ubatch-size"), f"{_TOML}: batch_tokens under [runtime]"),
    **dict.fromkeys(("--api-key", "--api-keys"), f"{_TOML}: api_keys under [server], see docs/security.md"),
    **dict.fromkeys(("--ttl", "--keep-alive", "--keepalive"), f"{_TOML}: idle_unload_seconds under [[models]]"),
    **dict.fromkeys(
        ("--temp", "--temperature", "--top-k", "--top-p", "--min-p", "--repeat-penalty", "--seed"),
        "A request carries it; a TOML file has defaults in its table [models.sampling]",
    ),
    **dict.fromkeys(("--gpu-memory-utilization", "--memory"), f"{_TOML}: budget under [memory]"),
    **dict.fromkeys(("-md", "--model-draft", "--draft-model"), f"{_TOML}: draft under [[models]]"),
    **dict.fromkeys(("--embedding", "--embeddings"), "Write --kind embedding"),
    **dict.fromkeys(("--rerank", "--reranking"), "Write --kind rerank"),
    **dict.fromkeys(("--chat-template-file",), "Write --chat-template FILE"),
    **dict.fromkeys(("-mm", "--mmproj-url"), "Write --mmproj NAME"),
    **dict.fromkeys(("--lora", "--lora-scaled"), "Adapters are not supported: merge them into the weights"),
    **dict.fromkeys(("--jinja",), "Leave it out: chat templates are always rendered as Jinja"),
    **dict.fromkeys(("--mmap",), "Leave it out: files are mapped unless --no-mmap is given"),
    **dict.fromkeys(("-ot", "--override-tensor"), "Write --tensor-override PATTERN=PLACE"),
    **dict.fromkeys(("-dev", "--device"), "Write --devices NAMES"),
    **dict.fromkeys(("-ncmoe", "-cmoe", "--cpu-moe"), "Write --n-cpu-moe N"),
    **dict.fromkeys(("-sm",), "Write --split-mode MODE"),
    **dict.fromkeys(("-ts",), "Write --tensor-split PARTS"),
    **dict.fromkeys(("-mg",), "Write --main-gpu N"),
    **dict.fromkeys(("-nkvo", "--no-kv-offload"), "Write --kv-on-host"),
    **dict.fromkeys(("--quantization",), "Write --quant LEVEL"),
    **dict.fromkeys(("-config", "--config-file", "--models-preset"), "Write a TOML file: modelyard init"),
    **dict.fromkeys(("-listen", "--listen"), "Write --host ADDRESS and --port PORT"),
    **dict.fromkeys(("--models-max",), f"{_TOML}: budget under [memory]"),
    **dict.fromkeys(("--estimate-only",), "Write: modelyard plan MODEL"),
    **dict.fromkeys(("-cnv", "--conversation", "-no-cnv", "--no-conversation", "-st", "--single-turn"), _CHAT),
    **dict.fromkeys(("-sys", "--system-prompt", "-sysf"), "The system prompt is --system TEXT"),
    **dict.fromkeys(("-predict", "--n-predict", "--predict", "--num-predict", "--max_tokens"), _MAX_TOKENS),
    **dict.fromkeys(("--models-dir", "--model-dir", "--models"), "Name the folder: modelyard serve FOLDER"),
    **dict.fromkeys(("--ssl-key-file", "--ssl-cert-file"), f"{_TOML}: ssl_certfile and ssl_keyfile under [server]"),
    **dict.fromkeys(("--metrics", "--slots"), "Leave it out: metrics are always at /metrics"),
    **dict.fromkeys(("--cors", "--cors-origins", "--allow-origins"), f"{_TOML}: cors_origins under [server]"),
    **dict.fromkeys(("--nowordwrap",), "Leave it out: answers are wrapped on a terminal, and never in a pipe"),
    **dict.fromkeys(("--insecure",), "Leave it out: downloads always use HTTPS"),
    **dict.fromkeys(
        ("--modelfile", "--parameters", "--license"),
        "Leave it out: show has all that the server tells of a model, and with --json as JSON",
    ),
    **dict.fromkeys(("--file", "-f"), "A configuration is --config or -f, a GGUF file in a folder --quantized-file"),
}  # fmt: skip
"""Option of another tool -> what takes its place. Source: the help of llama-server, ollama, lms and vllm."""

SWITCHES: Final[Mapping[str, str]] = {"--think": ", and --reasoning-effort high for an effort"}
"""Switch that takes a value in another tool -> how that value is written here. Source: the help of ollama run."""

OPTIONS_OF: Final[Mapping[str, Mapping[str, str]]] = {
    "run": {
        **dict.fromkeys(("-p", "--prompt"), _QUESTION),
        **dict.fromkeys(("--temp",), "Write --temperature NUMBER"),
        **dict.fromkeys(("--repeat-penalty",), "Write --repetition-penalty NUMBER"),
    },
    **{command: {"--all": _ALL} for command in ("load", "unload", "stop", "park")},
    **{command: dict.fromkeys(("--all", "-a"), "modelyard list shows all") for command in ("ps", "list")},
}
"""What takes the place of options that have another answer in some commands: command -> option -> answer."""
