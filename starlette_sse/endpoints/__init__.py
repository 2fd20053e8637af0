"""Streams as classes: what users subclass, and the life of a request to it.

:mod:`~starlette_sse.endpoints.endpoint` has the hooks and attributes, and :mod:`~starlette_sse.endpoints.channels` what
a broker's channels add; by a response (:mod:`~starlette_sse.endpoints.response`) a function may return either. They are
checked when a class is created: the attributes (:mod:`~starlette_sse.endpoints.configuration`), the hooks
(:mod:`~starlette_sse.endpoints.hooks`), and names that look like either (:mod:`~starlette_sse.endpoints.slips`). A
visit (:mod:`~starlette_sse.endpoints.visits`) takes one request from its limits to its cleanup.
"""

from starlette_sse.endpoints.channels import ChannelEndpoint
from starlette_sse.endpoints.endpoint import SSEEndpoint
from starlette_sse.endpoints.response import EndpointResponse

__all__ = ["ChannelEndpoint", "EndpointResponse", "SSEEndpoint"]
