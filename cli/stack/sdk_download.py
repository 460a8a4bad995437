"""Ask the Temporal SDK to download the dev server: `python -m cli.stack.sdk_download FOLDER VERSION`.

The SDK only offers the download together with a start of the server. A process of its own can be given a time limit
and killed, which a native download inside the supervisor could not.
"""

import asyncio
import sys

from temporalio.testing import WorkflowEnvironment


async def main(folder: str, version: str) -> None:
    """Download into a folder, start once, stop."""
    environment = await WorkflowEnvironment.start_local(
        download_dest_dir=folder, dev_server_download_version=f"v{version}", dev_server_log_level="error"
    )
    await environment.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
