"""Our log, as quiet as the others': no contestant prints a line for each request."""

from __future__ import annotations

import logging

import structlog

__all__ = ["quieten"]


def quieten(*, for_good: bool = False) -> None:
    """Log warnings and worse only, as a server with its access log off does.

    :param for_good: nothing will configure structlog again, so that it may cache loggers, as it advises for speed.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING), cache_logger_on_first_use=for_good
    )
