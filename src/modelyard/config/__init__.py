"""The configuration of a server, read from a TOML file or the command line, and checked before anything starts."""

from modelyard.config.adapter import Adapter
from modelyard.config.base import Scope
from modelyard.config.effective import default_model, effective_cpu, isolation_of, running_at_once
from modelyard.config.hosts import is_loopback
from modelyard.config.hub import read_token
from modelyard.config.keys import AccessKey, read_keys
from modelyard.config.load import load_config, located, revise, validate_config
from modelyard.config.mcp import Mcp, McpServer
from modelyard.config.mcp_file import mcp_config_path, mcp_tables
from modelyard.config.missing_paths import missing_ids, missing_models, missing_paths
from modelyard.config.model import (
    Device,
    FrequencyPenalty,
    MinP,
    Model,
    PresencePenalty,
    Quantization,
    RepetitionPenalty,
    Sampling,
    Seed,
    Temperature,
    TopK,
    TopP,
)
from modelyard.config.names import Command, Isolation, Kind, Load
from modelyard.config.quantization_names import ISQ_NAMES, QUANT_NAMES
from modelyard.config.schema import Config, Runtime
from modelyard.config.server import Key, Server

__all__ = [
    "ISQ_NAMES",
    "QUANT_NAMES",
    "AccessKey",
    "Adapter",
    "Command",
    "Config",
    "Device",
    "FrequencyPenalty",
    "Isolation",
    "Key",
    "Kind",
    "Load",
    "Mcp",
    "McpServer",
    "MinP",
    "Model",
    "PresencePenalty",
    "Quantization",
    "RepetitionPenalty",
    "Runtime",
    "Sampling",
    "Scope",
    "Seed",
    "Server",
    "Temperature",
    "TopK",
    "TopP",
    "default_model",
    "effective_cpu",
    "is_loopback",
    "isolation_of",
    "load_config",
    "located",
    "mcp_config_path",
    "mcp_tables",
    "missing_ids",
    "missing_models",
    "missing_paths",
    "read_keys",
    "read_token",
    "revise",
    "running_at_once",
    "validate_config",
]
