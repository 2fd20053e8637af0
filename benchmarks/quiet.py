"""Our log, as quiet as the others': no contestant prints a line for each request."""

from __future__ import annotations

import logging

import structlog

__all__ = ["quieten"]


def quieten() -> None:
    """Log warnings and worse only, as a server with its access log off does; cached, as structlog advises for speed."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING), cache_logger_on_first_use=True
    )
