"""The config: its sections, its checks, and how YAML becomes one."""

from coralx.config.load import dump_yaml, load_config, parse_config
from coralx.config.schema import Config

__all__ = ["Config", "dump_yaml", "load_config", "parse_config"]
