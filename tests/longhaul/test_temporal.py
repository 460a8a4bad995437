"""How the client of Temporal is set up."""

from temporalio.service import GrpcCompression

from longhaul import temporal
from longhaul.settings import Settings


async def test_only_bytes_that_leave_the_machine_are_compressed() -> None:
    for address, compression in (
        ("127.0.0.1:7233", GrpcCompression.NONE),
        ("localhost:7233", GrpcCompression.NONE),
        ("[::1]:7233", GrpcCompression.NONE),
        ("temporal.example.com:7233", GrpcCompression.GZIP),
    ):
        client = await temporal.connect(Settings(TEMPORAL_ADDRESS=address), lazy=True)
        assert client.service_client.config.grpc_compression is compression
