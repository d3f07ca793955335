"""A Hugging Face Hub on the loopback interface, for tests.

The unmodified `huggingface_hub` client, with and without xet, and KerasHub
work against it. All is in memory and gone with the server.
"""

from tests.hub_server.server import Fault, HubServer

__all__ = ["Fault", "HubServer"]
