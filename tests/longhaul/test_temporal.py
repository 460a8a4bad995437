"""How the client of Temporal is set up."""

from temporalio.service import GrpcCompression

from longhaul import temporal
from longhaul.settings import Settings, load_settings


async def test_only_bytes_that_leave_the_machine_are_compressed() -> None:
    for address, compression in (
        ("127.0.0.1:7233", GrpcCompression.NONE),
        ("localhost:7233", GrpcCompression.NONE),
        ("[::1]:7233", GrpcCompression.NONE),
        ("temporal.example.com:7233", GrpcCompression.GZIP),
    ):
        client = await temporal.connect(Settings(TEMPORAL_ADDRESS=address), lazy=True)
        assert client.service_client.config.grpc_compression is compression


def test_the_address_of_a_session_in_the_web_ui() -> None:
    shown = load_settings(temporal_ui_url="http://ui:8233/", temporal_namespace="team")
    assert temporal.workflow_url(shown, "s-1") == "http://ui:8233/namespaces/team/workflows/turn%3As-1"
    assert temporal.workflow_url(load_settings(temporal_ui_url=""), "s-1") is None
