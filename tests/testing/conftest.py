"""The kit's own plugin, also where the package is not installed with its entry points."""

from __future__ import annotations

import pytest

from starlette_sse.testing import plugin


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.is_registered(plugin):
        config.pluginmanager.register(plugin, "starlette_sse")
