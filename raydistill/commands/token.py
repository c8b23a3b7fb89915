"""The token of a cluster: asked for before Ray is, which would try for half a minute and tell of it at length."""

from __future__ import annotations

import importlib
import os

from raydistill.commands.job_server import TOKEN
from raydistill.errors import ConfigError

ANSWER_S = 5.0


def check_token(address: str) -> None:
    """Whether the Ray at `host:port` lets this process join, as far as that can be found out here.

    Raises:
        ConfigError: it wants a token, and there is none on this side, or another one.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    try:
        grpc, messages, services, ours = (
            importlib.import_module(name)
            for name in (
                "grpc", "ray.core.generated.gcs_service_pb2", "ray.core.generated.gcs_service_pb2_grpc",
                "ray._private.authentication.grpc_authentication_client_interceptor",
            )
        )  # fmt: skip
        interceptor = ours.SyncAuthenticationMetadataClientInterceptor()
    except (ImportError, AttributeError):  # none of it is Ray's public interface: then Ray says so itself, later
        return
    with grpc.insecure_channel(address) as channel:
        stub = services.NodeInfoGcsServiceStub(grpc.intercept_channel(channel, interceptor))
        try:
            stub.CheckAlive(messages.CheckAliveRequest(), timeout=ANSWER_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ConfigError(
                    f"the Ray at {address} asks for a token, and this side has none or another one; {TOKEN}"
                ) from error
        except Exception:  # noqa: BLE001 (no token where RAY_AUTH_MODE wants one: Ray tells of it well)
            return
