"""The root schema that rejects unknown keys and impossible combinations, and how it reports mistakes to the user."""

from tubelet.config import resolvers as _resolvers  # noqa: F401  (registers them)
from tubelet.config.check import check
from tubelet.config.command_line import CheckConfig, explain, job_errors, user_errors
from tubelet.config.schema import ConfigError, Root

__all__ = ["CheckConfig", "ConfigError", "Root", "check", "explain", "job_errors", "user_errors"]
