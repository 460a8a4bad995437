"""The chat page at `/`: files that `make page` builds from `web/`."""

import mimetypes
import os
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIST = Path(__file__).resolve().parents[1] / "web" / "dist"
# What a model writes can neither run as a script nor load anything from another host. The component library sets
# styles inline, so styles cannot be limited to files.
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
#: Nothing keeps what a link shows, no search engine lists it, and no page that it leads to learns of the link.
PRIVATE = {"cache-control": "private, no-store", "referrer-policy": "no-referrer", "x-robots-tag": "noindex, nofollow"}
NOT_BUILT = """<!doctype html><html lang="en"><title>Longhaul</title>
<p>Longhaul runs, but its chat page has not been built. Run <code>make page</code>, then load this page again.
The API is described at <a href="/docs">/docs</a>.</p></html>"""


class Assets(StaticFiles):
    """Files whose names change with their content, so that browsers may keep them for ever; compressed by the build."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file with its caching header, compressed for those who take that."""
        compressed = Path(f"{full_path}.gz")
        takes = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        if takes and compressed.exists():
            response = super().file_response(compressed, compressed.stat(), scope, status_code)
            response.headers["content-encoding"] = "gzip"
            response.headers["content-type"] = mimetypes.guess_type(full_path)[0] or "application/octet-stream"
        else:
            response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["vary"] = "accept-encoding"
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        response.headers["x-content-type-options"] = "nosniff"
        return response


def install(app: FastAPI, dist: Path = DIST) -> None:
    """Serve the page. It may be built after the API has started."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        index = dist / "index.html"
        if not index.exists():
            return HTMLResponse(NOT_BUILT, 503, headers=SECURITY)
        return FileResponse(index, headers={**SECURITY, "cache-control": "no-cache"})

    @app.get("/shared/{token}", include_in_schema=False)
    async def shared() -> Response:
        """The same page: it reads the token from its address. Whether the link works, `/v1/shared/{token}` tells."""
        answer = await page()
        answer.headers.update(PRIVATE)
        return answer

    @app.get("/favicon.svg", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(dist / "favicon.svg", headers=SECURITY)

    app.mount("/assets", Assets(directory=dist / "assets", check_dir=False))
