"""The kit's own plugin, also where the package is not installed with its entry points."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("starlette_sse.testing.plugin")
